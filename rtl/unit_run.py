"""Heads through the attention unit: tensors to beats of its streams, and beats back to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl import job as jobs
from tilewright.rtl.job import Integers, Job
from tilewright.rtl.parameters import WORD_TILES
from tilewright.rtl.ports import Stream
from tilewright.rtl.streams import Cycles, Simulator, Sink, Source, Trace, Words, pack, to_words, unpack

Gaps = Mapping[str, Sequence[int] | Cycles]
"""By stream, over all jobs of a run; a stream that is not named has none."""


@dataclass(frozen=True)
class Head:
    """A job with its tensors, as whole numbers: Q [queries, D], K and V [keys, D]."""

    job: Job
    q: Integers
    k: Integers
    v: Integers


@dataclass(frozen=True)
class UnitRun:
    """What the unit made of some heads, one after another."""

    outputs: tuple[Integers, ...]
    """O [queries, D] of each head."""
    trace: Trace

    @property
    def cycles(self) -> int:
        """From the offer of the first command until the last beat of O is taken."""
        return self.trace.cycles


def random_head(parameters: UnitSizes, job: Job, rng: np.random.Generator) -> Head:
    """A head of uniformly distributed operands."""
    half = 1 << (parameters.operand_bits - 1)
    shapes = [(rows, parameters.head_dim) for rows in (job.queries, job.keys, job.keys)]
    return Head(job, *(rng.integers(-half, half, shape, dtype=np.int64) for shape in shapes))


def run_heads(
    unit: Simulator, parameters: UnitSizes, heads: Sequence[Head], gaps: Gaps | None = None
) -> UnitRun:
    """Run `heads` through a unit of these parameters. Raises `StuckError` if it does not finish."""
    sources, sinks = channels(unit.ports.stream("command"), parameters, heads, gaps or {})
    trace = unit.run(sources, sinks)
    beats = unpack(trace.payloads["o"], parameters.operand_bits, parameters.rows)
    return UnitRun(tuple(_outputs(parameters, heads, beats)), trace)


def channels(
    command: Stream, parameters: UnitSizes, heads: Sequence[Head], gaps: Gaps
) -> tuple[dict[str, Source], dict[str, Sink]]:
    """The beats for every stream of the unit; elements that don't matter are drawn at random."""
    filler = np.random.default_rng(0)
    made = [jobs.streams(parameters, head.job, head.q, head.k, head.v, filler) for head in heads]
    bits = parameters.operand_bits
    payloads: dict[str, Words] = {
        "command": to_words([_command(command, parameters, head.job) for head in heads], command.width),
        "bitmap": pack(np.concatenate([each.bitmap for each in made])[:, None], WORD_TILES),
        "q": pack(np.concatenate([each.q for each in made]), bits),
        "k": pack(np.concatenate([each.k for each in made]), bits),
        "v": pack(np.concatenate([each.v for each in made]), bits),
    }
    sources = {name: Source(words, gaps.get(name, ())) for name, words in payloads.items()}
    return sources, {"o": Sink(len(payloads["q"]), gaps.get("o", ()))}


def output_beats(parameters: UnitSizes, heads: Sequence[Head], outputs: Sequence[Integers]) -> Words:
    """Payloads of the `o` stream for these outputs; rows beyond a head's last query are 0."""
    beats = []
    for head, output in zip(heads, outputs, strict=True):
        q_tiles = jobs.tiles(head.job.queries, parameters.rows)
        padded = np.zeros((q_tiles * parameters.rows, parameters.head_dim), np.int64)
        padded[: head.job.queries] = output
        by_tile = padded.reshape(q_tiles, parameters.rows, parameters.head_dim).transpose(0, 2, 1)
        beats.append(by_tile.reshape(-1, parameters.rows))
    return pack(np.concatenate(beats), parameters.operand_bits)


def _outputs(parameters: UnitSizes, heads: Sequence[Head], beats: Integers) -> list[Integers]:
    counts = [jobs.tiles(head.job.queries, parameters.rows) * parameters.head_dim for head in heads]
    parts = np.split(beats, np.cumsum(counts)[:-1])
    return [jobs.output(parameters, head.job, part) for head, part in zip(heads, parts, strict=True)]


def _command(command: Stream, parameters: UnitSizes, job: Job) -> int:
    """The payload of a command beat; bounds further than `max_keys` away mean the same as those."""
    values = job.command
    for bound in ("low", "high"):
        values[bound] = min(max(values[bound], -parameters.max_keys), parameters.max_keys)
    return sum((values[field.name] & ((1 << field.width) - 1)) << field.offset for field in command.fields)
