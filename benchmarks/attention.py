"""Every attention mechanism on one accelerator, 1,024 to 65,536 tokens: the numbers of docs/attention.md.

    python -m benchmarks.attention [--tokens N ...] [--check]

simulates each case at each length and writes benchmarks/results/attention.csv; given lengths, only these rows
are worked out and put in the place of the old ones. `--check` writes nothing: it works out the rows of one
length anew, and exits with 1 if they differ from the file's in any digit. docs/attention_table.py makes the
page's tables of the file.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import tilewright as tw
from benchmarks.measure import RESULTS
from tilewright.sim.result import Result
from tilewright.workloads.attention.choice import mechanisms
from tilewright.workloads.graph import OperatorGraph

FILE = RESULTS / "attention.csv"
ACCELERATOR = "tpu-v3-core"
TOKENS = (1024, 4096, 16384, 65536)
CHECKED_TOKENS = 16384
"""The length whose rows `--check` recomputes."""

ENCODER = ("encoder_block", "d=768", "heads=12", "ffn=3072")
_LLAMA = ("layers=1", "d=768", "heads=12", "head_dim=64", "vocab=256")
DECODER = ("llama-2-7b", *_LLAMA, "kv_heads=12", "ffn=2048")
MIXTURE = ("mixtral-8x7b", *_LLAMA, "kv_heads=12", "experts=8", "active_experts=2", "expert_ffn=1024")
LLAMA = "dense in a LLaMA layer"
GROUPED = "grouped queries (GQA), 3 key heads"
MULTI_QUERY = "multi-query (MQA), 1 key head"
EXPERTS = "mixture of experts, 2 of 8"
NOT_ROTARY = frozenset({"compressive", "synthesizer", "transformer_xl"})
"""Kinds that could decode, but not in a LLaMA layer: they have no rotary positions."""
NEEDS_A_FILE = "mask_file"
"""The one kind without a row of its own: its masks fix the number of tokens."""

VARIANTS = {
    "memory_compressed": ("layer=local",),
    "sliding_window": ("window=512",),
    "sparse": ("layout=strided",),
    "synthesizer": ("variant=random", "variant=factorised_dense", "variant=factorised_random"),
}
"""By kind: further rows, each with one parameter other than the default."""
INSTEAD = {"threshold": "of=blocks"}
"""By kind: the parameter of its only row, where the default takes fewer tokens than the table has."""


@dataclass(frozen=True, slots=True)
class Case:
    """A line of the table: what runs, but for the number of tokens."""

    name: str
    kind: str
    """Of the mechanism that attends; `moe` for the mixture of experts, whose attention is dense."""
    phase: str
    """`layer`: all tokens at once; `decode`: one token, the others in the cache."""
    workload: tuple[str, ...]
    """A preset and overrides."""

    def graph(self, tokens: int) -> OperatorGraph:
        """The workload at a length."""
        return tw.load_workload(self.workload[0], [*self.workload[1:], f"seq={tokens}"])


@dataclass(frozen=True, slots=True)
class Row:
    """A case at a length. `*_cycles` from `projection` on add up to `cycles`."""

    name: str
    kind: str
    phase: str
    tokens: int
    cycles: int
    energy_j: float
    dram_bytes: int
    peak_memory_bytes: int
    macs: int
    useful_macs: int
    peak_macs_per_cycle: int
    dram_busy_cycles: int
    projection_cycles: int
    """Of matrix products with weights: projections, feed-forward network."""
    product_cycles: int
    """Of matrix products of two activations, or with a cache: scores, context."""
    softmax_cycles: int
    move_cycles: int
    """Gathers and scatters, those into caches too."""
    order_cycles: int
    """Sorts, top-k and scans."""
    vector_cycles: int
    """Norms, element-wise operators and reductions that are in no product's loop nest."""


def cases() -> tuple[Case, ...]:
    """Every registered mechanism as a layer, and in a decode step where it has one; heads that share keys;
    a mixture of experts."""
    found: list[Case] = []
    for kind, mechanism in mechanisms().items():
        if kind == NEEDS_A_FILE:
            continue
        first = (INSTEAD[kind],) if kind in INSTEAD else ()
        for changed in (first, *((each,) for each in VARIANTS.get(kind, ()))):
            name = " ".join((kind, *changed))
            how = (f"attention.kind={kind}", *(f"attention.{each}" for each in changed))
            causal = () if mechanism.encode else ("causal=true",)
            found.append(Case(name, kind, "layer", (*ENCODER, *causal, *how)))
            if mechanism.decode and kind not in NOT_ROTARY:
                found.append(Case(name, kind, "decode", (*DECODER, "phase=decode", *how)))
    return (*found, *_llama_cases())


def _llama_cases() -> Iterator[Case]:
    """LLaMA layers: heads that share keys, and a mixture of experts."""
    yield Case(LLAMA, "dense", "layer", DECODER)
    others = (
        (GROUPED, "dense", (*DECODER, "kv_heads=3")),
        (MULTI_QUERY, "dense", (*DECODER, "kv_heads=1")),
        (EXPERTS, "moe", MIXTURE),
    )
    for name, kind, workload in others:
        yield Case(name, kind, "layer", workload)
        yield Case(name, kind, "decode", (*workload, "phase=decode"))


def run(case: Case, tokens: int) -> Row:
    """Simulate a case at a length."""
    graph = case.graph(tokens)
    result = tw.simulate(tw.load_accelerator(ACCELERATOR), graph)
    return Row(
        name=case.name,
        kind=case.kind,
        phase=case.phase,
        tokens=tokens,
        cycles=result.cycles,
        energy_j=result.energy_j["total"],
        dram_bytes=result.traffic_bytes["dram"].read + result.traffic_bytes["dram"].write,
        peak_memory_bytes=result.peak_memory_bytes,
        macs=result.macs,
        useful_macs=result.useful_macs,
        peak_macs_per_cycle=result.peak_macs_per_cycle,
        dram_busy_cycles=result.units["dram"]["busy"],
        **_cycles_by_kind(result, graph),
    )


def _cycles_by_kind(result: Result, graph: OperatorGraph) -> dict[str, int]:
    """The cycles of each kind of operator, as `Row` groups them."""
    group = dict.fromkeys(("norm", "elementwise", "reduce"), "vector_cycles")
    group |= dict.fromkeys(("gather", "scatter"), "move_cycles")
    group |= dict.fromkeys(("sort", "topk", "scan"), "order_cycles") | {"softmax": "softmax_cycles"}
    plain = graph.expand()
    weighted = {
        op.name
        for op in plain.operators
        if op.kind == "matmul" and any(plain.tensors[name].role == "weight" for name in op.inputs[:2])
    }
    sums = dict.fromkeys((field.name for field in fields(Row) if field.name.endswith("_cycles")), 0)
    del sums["dram_busy_cycles"]
    for row in result.operators:
        product = "projection_cycles" if row.name in weighted else "product_cycles"
        sums[group.get(row.kind, product)] += row.cycles
    return sums


def rows(tokens: Iterable[int]) -> Iterator[Row]:
    """All cases at the lengths."""
    for length in tokens:
        for case in cases():
            yield run(case, length)


def kept() -> list[Row]:
    """The rows of the file."""
    kinds = {field.name: {"int": int, "float": float}.get(str(field.type), str) for field in fields(Row)}
    with FILE.open(newline="") as file:
        return [
            Row(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(file)
        ]


def write(found: Iterable[Row], path: Path) -> None:
    """Write the file: layers before decode steps, a case's lengths together."""
    order = {(case.phase, case.name): place for place, case in enumerate(cases())}
    place = sorted(found, key=lambda row: (row.phase != "layer", order[row.phase, row.name], row.tokens))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in place)


def check() -> int:
    """Recompute the rows of `CHECKED_TOKENS`; the exit code."""
    before = {(row.phase, row.name): row for row in kept() if row.tokens == CHECKED_TOKENS}
    now = {(row.phase, row.name): row for row in rows([CHECKED_TOKENS])}
    stale = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    for key in stale:
        print(f"kept: {before.get(key)}\nnow:  {now.get(key)}")
    print(f"{len(now) - len(stale)} of {len(now)} rows of {CHECKED_TOKENS:,} tokens are as kept")
    return 1 if stale else 0


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--tokens", type=int, nargs="+", choices=TOKENS, default=list(TOKENS))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return check()
    old = [] if set(options.tokens) == set(TOKENS) else kept()
    known = {(case.phase, case.name) for case in cases()}
    stay = [row for row in old if row.tokens not in options.tokens and (row.phase, row.name) in known]
    fresh = []
    for row in rows(options.tokens):
        print(f"{row.tokens:7,} {row.phase:6} {row.name:34} {row.cycles:15,} cycles", file=sys.stderr)
        fresh.append(row)
    write([*stay, *fresh], FILE)
    print(f"written to {FILE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
