"""What the operators of a region really do: all that they say, or, where a sparse-attention unit leaves pairs
out or an online softmax goes over its results again, less or more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from types import MappingProxyType

from tilewright.arch.array import Array
from tilewright.dataflows.attention_region import jobs_of, sizes_of, tiles_of
from tilewright.dataflows.chain_tiling import ChainTiling
from tilewright.dataflows.in_array import STATISTICS_OPS, keeps_scores
from tilewright.dataflows.mapper import AnyTiling
from tilewright.dataflows.sparse.base import Piece
from tilewright.dataflows.sparse.program import choose, sequences
from tilewright.dataflows.specs import ChainSpec, MatmulSpec, Spec, StreamSpec, UnitSpec
from tilewright.dataflows.tiling import Tiling
from tilewright.workloads import primitives
from tilewright.workloads.operators import Operator

_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Work:
    """Of one operator."""

    macs: int
    useful_macs: int
    vector: Mapping[str, int]
    """Primitive operations of the vector unit by name."""
    array_steps: int = 0
    """Further steps of the array's multipliers and adders that are no multiply-accumulates of the workload:
    softmax within the array."""
    predictor_macs: int = 0
    predictor: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """Further primitive operations of the predictor."""


def works(
    members: list[Operator], spec: Spec, tiling: AnyTiling | None, array: Array, cores: int = 1
) -> list[Work]:
    """What each of a region's operators does in one run."""
    if isinstance(spec, StreamSpec):
        return _on_the_streaming_unit(members, spec, array)
    if isinstance(spec, UnitSpec):
        return _on_a_unit(members, spec, array)
    if tiling is None and isinstance(spec, ChainSpec) and spec.softmax is not None and spec.softmax.in_array:
        return [Work(0, 0, {}) if op.kind == "softmax" else _as_said(op) for op in members]
    if isinstance(spec, ChainSpec) and isinstance(tiling, ChainTiling) and spec.softmax is not None:
        softmax = None
        if keeps_scores(tiling.order, array):
            softmax = _in_the_array(spec, tiling, array)
        elif tiling.online:
            softmax = _online(spec, tiling)
        if softmax is not None:
            return [softmax if op.kind == "softmax" else _as_said(op) for op in members]
    done = [_as_said(op) for op in members]
    if isinstance(spec, MatmulSpec):  # zeros of structured sparsity are skipped
        done[0] = replace(done[0], macs=spec.macs, useful_macs=min(done[0].useful_macs, spec.macs))
        if isinstance(tiling, Tiling) and tiling.split == "k":
            done[0] = replace(done[0], vector=_with_sums(done[0].vector, spec, cores))
    return done


def _with_sums(vector: Mapping[str, int], spec: MatmulSpec, cores: int) -> dict[str, int]:
    """With the additions that make one sum of every core's."""
    shape = spec.shape
    additions = (cores - 1) * shape.batch * shape.m * shape.n
    return {**vector, "add": vector.get("add", 0) + additions}


def _as_said(op: Operator) -> Work:
    useful = op.macs if op.useful_macs is None else op.useful_macs
    return Work(op.macs, useful, dict(op.primitives))


def _online(spec: ChainSpec, tiling: ChainTiling) -> Work:
    shape = spec.first.shape
    tiles = ceil(shape.n / tiling.cols)
    made = primitives.online_softmax(shape.batch * shape.m, shape.n, tiles, spec.second.shape.n)
    return Work(0, 0, dict(made))


def _in_the_array(spec: ChainSpec, tiling: ChainTiling, array: Array) -> Work:
    """The elements take the scores' maxima, exponentials and sums; rows' statistics and rescaling are left to
    the vector unit, or with `fsa` to the array as well."""
    shape, width = spec.first.shape, spec.second.shape.n
    rows, tiles = shape.batch * shape.m, ceil(shape.n / tiling.cols)
    steps = rows * shape.n * (STATISTICS_OPS + (array.exp_macs or array.exp_pieces or 0))
    rest = primitives.online_softmax(rows, 0, tiles, width)
    if tiling.order == "fsa":
        return Work(0, 0, {}, steps + sum(count for _, count in rest))
    return Work(0, 0, dict(rest), steps)


def _on_a_unit(members: list[Operator], spec: UnitSpec, array: Array) -> list[Work]:
    """Scores that are left out cost no multiply-accumulates, no scaling and no softmax."""
    chosen, times = choose(spec.unit, spec.pairs, array), sequences(spec)
    pieces = [piece for head in chosen.heads for piece in head.pieces]
    macs, scores = (times * sum(getattr(piece, name) for piece in pieces) for name in ("macs", "scores"))
    kept, width, values = times * chosen.quality.kept, spec.first.shape.k, spec.second.shape.n
    first = macs * width // (width + values)
    share = scores / (spec.first.shape.batch * spec.first.shape.m * spec.first.shape.n)
    found, is_second = [], False
    for number, op in enumerate(members):
        left = 1.0 if is_second else share
        made: dict[str, int] = {name: ceil(count * left) for name, count in op.primitives}
        if number == 0:
            found.append(Work(first, min(first, kept * width), made, 0, *_predicted(pieces, times)))
        elif op.kind == "matmul":
            found.append(Work(macs - first, min(macs - first, kept * values), made))
            is_second = True
        else:
            found.append(Work(0, 0, made))
    return found


def _on_the_streaming_unit(members: list[Operator], spec: StreamSpec, array: Array) -> list[Work]:
    """Whole tiles are computed, padding and masked pairs included; the softmax is counted as
    `tilewright.workloads.primitives.online_softmax` counts one."""
    sizes = sizes_of(spec, array)
    queries, tiles = tiles_of(sizes, jobs_of(spec, array))
    pes, steps, dim = sizes.rows * sizes.cols, sizes.rows * tiles, sizes.head_dim
    scores, rows = tiles * pes, sizes.rows * queries
    softmax = {
        "compare": scores + steps,
        "add": 2 * scores + 2 * steps + dim * steps,
        "exp": scores + steps,
        "multiply": steps + dim * steps + dim * rows,
        "divide": rows,
    }
    macs, found = [scores * sizes.score_beats, scores * dim], []
    for op in members:
        if op.kind == "matmul":
            done = macs.pop(0)
            useful = op.macs if op.useful_macs is None else op.useful_macs
            found.append(Work(done, useful, dict(op.primitives)))
        elif op.kind == "softmax":
            found.append(Work(0, 0, softmax))
        else:
            found.append(Work(0, 0, {"multiply": scores}))
    return found


def _predicted(pieces: list[Piece], times: int) -> tuple[int, dict[str, int]]:
    done: dict[str, int] = {}
    for piece in pieces:
        for name, count in piece.predictor_primitives.items():
            done[name] = done.get(name, 0) + times * count
    return times * sum(piece.predictor_macs for piece in pieces), done
