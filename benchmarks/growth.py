"""How cycles and memory grow with the length, beside what was measured: local slopes on logarithmic axes.

    python -m benchmarks.growth [--kept | --check]

The measurements are in benchmarks/data/growth_published.csv, each with its source: training steps of the
Long Range Arena's models on TPU v3, and the attention operations of FlashAttention's appendix on an A100.
Here the same models run on the shipped accelerator that comes nearest. Nothing is fitted. The slopes are
written to benchmarks/results/growth.csv; `--kept` prints those that are there, and `--check` works out those
of `CHECKED` anew and exits with 1 if one differs.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise, zip_longest
from math import log
from statistics import median

import tilewright as tw
from benchmarks.measure import RESULTS, ROOT
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.training_memory import training_memory

PUBLISHED = ROOT / "benchmarks" / "data" / "growth_published.csv"
FILE = RESULTS / "growth.csv"
LRA, FLASH = "LRA", "FlashAttention"
ACCELERATORS = {LRA: "tpu-v3-core", FLASH: "many-core-server"}
QUANTITIES = {
    (LRA, "steps per second"): ("time", -1),
    (LRA, "peak memory GB per device"): ("memory", 1),
    (FLASH, "forward ms"): ("time", 1),
    (FLASH, "memory MB"): ("memory", 1),
}
"""What a column of the papers measures, and the sign of its slope."""

LRA_MODEL = (
    "layers=4", "d=256", "heads=4", "ffn=1024", "vocab=256", "positions=4096", "segments=0"
)  # fmt: skip
"""The text classifier of github.com/google-research/long-range-arena (base_tc_config.py); its batch of 32 on
32 cores is a sequence for each."""
LRA_MECHANISMS = {
    "Transformer": ("dense",),
    "Local Attention": ("memory_compressed", "layer=local", "local_block=50", "block=50"),
    "Linformer": ("linformer", "k=32"),
    "Reformer": ("reformer", "chunk=10", "rounds=1", "buckets=[10]"),
    "Sinkhorn Transformer": ("sinkhorn", "block=50"),
    "Synthesizer": ("synthesizer", "variant=factorised_random", "k=32"),
    "BigBird": ("bigbird", "block=64", "random_blocks=3"),
    "Linear Transformer": ("linear",),
    "Performer": ("performer", "features=256"),
}
"""The sizes are the defaults of the same repository."""
FLASH_MODEL = ("d=512", "heads=8", "batch=16")
FLASH_MECHANISMS = {
    "PyTorch Attention": ("dense",),
    "Megatron": ("dense",),
    "Reformer": ("reformer", "chunk=64", "rounds=8"),
    "Local Attention": ("longformer", "window={2c}", "global_tokens=0"),
    "Linformer": ("linformer", "k={c}"),
    "Longformer": ("longformer", "window={c}"),
    "BigBird": ("bigbird",),
    "FlashAttention": ("flash",),
}
"""`c`, the paper's compressed length, is an eighth of the tokens, and at most 256. Reformer has the defaults
of the package reformer-pytorch. The other models of the paper have no counterpart."""
CHECKED = ((LRA, "Linformer"), (LRA, "Reformer"), (FLASH, "Longformer"), (FLASH, "Smyrf"))
PROJECTIONS = frozenset(
    {"query", "key", "value", "output", "query_key", "query_global", "key_global", "value_global"}
)


@dataclass(frozen=True, slots=True)
class Slope:
    """log(y2 / y1) / log(n2 / n1) of one quantity between two lengths."""

    suite: str
    model: str
    quantity: str
    """`time` or `memory`."""
    tokens: int
    more_tokens: int
    published: float
    predicted: float | None
    """None where there is no such mechanism here."""
    note: str
    source: str


def graph(suite: str, model: str, tokens: int) -> OperatorGraph | None:
    """What stands for a paper's model here; None if nothing does."""
    kind, *parameters = (LRA_MECHANISMS if suite == LRA else FLASH_MECHANISMS).get(model, ("",))
    if not kind:
        return None
    c = min(tokens // 8, 256)
    sizes = [f"attention.{each.format_map({'c': c, '2c': 2 * c})}" for each in parameters]
    chosen = [f"seq={tokens}", f"attention.kind={kind}", *sizes]
    if suite == LRA:
        return tw.load_workload("bert-base", [*LRA_MODEL, *chosen])
    return attention_only(tw.load_workload("encoder_block", [*FLASH_MODEL, *chosen]))


def attention_only(block: OperatorGraph) -> OperatorGraph:
    """An encoder block's attention without its four projections."""
    left_out = {f"attention.{name}" for name in PROJECTIONS}
    core = tuple(op for op in block.operators if op.name.startswith("attention.") and op.name not in left_out)
    made = {name for op in core for name in op.outputs}
    read = dict.fromkeys(name for op in core for name in op.inputs if name not in made)
    inputs = tuple(name for name in read if block.tensors[name].role not in ("weight", "kv_cache"))
    last = tuple(name for name in core[-1].outputs)
    tensors = {name: block.tensors[name] for name in (*read, *made)}
    return replace(block, operators=core, tensors=tensors, inputs=inputs, outputs=last)


def predicted(suite: str, model: str, tokens: int) -> Mapping[str, float]:
    """Cycles of the forward pass, and bytes that training holds: activations, and in LRA four times the
    parameters (weights, gradients and Adam's two moments). Empty if nothing stands for the model."""
    made = graph(suite, model, tokens)
    if made is None:
        return {}
    cycles = tw.simulate(tw.load_accelerator(ACCELERATORS[suite]), made).cycles
    element_bytes = 4 if suite == LRA else 2
    held = training_memory(made, element_bytes=element_bytes).total_bytes
    parameters = 4 * element_bytes * made.parameters if suite == LRA else 0
    return {"time": cycles, "memory": held + parameters}


def slopes(models: Iterable[tuple[str, str]] | None = None) -> Iterator[Slope]:
    """Every published slope in the order of the file, and ours; only of `models` (suite, model) if given."""
    series: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    with PUBLISHED.open(newline="") as file:
        for row in csv.DictReader(file):
            series.setdefault((row["suite"], row["model"], row["quantity"]), []).append(row)
    wanted = None if models is None else set(models)
    ours: dict[tuple[str, str, int], Mapping[str, float]] = {}
    for (suite, model, column), rows in series.items():
        if wanted is not None and (suite, model) not in wanted:
            continue
        quantity, sign = QUANTITIES[suite, column]
        for few, many in pairwise(rows):
            for row in (few, many):
                key = suite, model, int(row["tokens"])
                ours[key] = ours.get(key) or predicted(*key)
            n, more = int(few["tokens"]), int(many["tokens"])
            here, there = (ours[suite, model, tokens].get(quantity) for tokens in (n, more))
            yield Slope(
                suite, model, quantity, n, more,
                published=round(sign * slope(n, float(few["value"]), more, float(many["value"])), 3),
                predicted=None if here is None or there is None else round(slope(n, here, more, there), 3),
                note=few["note"] or many["note"],
                source=few["source"],
            )  # fmt: skip


def slope(n: int, y: float, more: int, there: float) -> float:
    """Of the line through both points on logarithmic axes."""
    return log(there / y) / log(more / n)


def kept() -> list[Slope]:
    """The slopes of the file."""
    with FILE.open(newline="") as file:
        return [_read(row) for row in csv.DictReader(file)]


def _read(row: Mapping[str, str]) -> Slope:
    guess = float(row["predicted"]) if row["predicted"] else None
    return Slope(
        row["suite"], row["model"], row["quantity"], int(row["tokens"]), int(row["more_tokens"]),
        float(row["published"]), guess, row["note"], row["source"],
    )  # fmt: skip


def write(found: Iterable[Slope]) -> None:
    """Write the file."""
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Slope)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in found)


def medians(found: Iterable[Slope]) -> Iterator[tuple[str, str, str, int, float, float | None]]:
    """(suite, model, quantity, slopes, median published, median predicted), without suspect values."""
    groups: dict[tuple[str, str, str], list[Slope]] = {}
    for each in found:
        if not each.note:
            groups.setdefault((each.suite, each.model, each.quantity), []).append(each)
    for (suite, model, quantity), members in groups.items():
        ours = [each.predicted for each in members if each.predicted is not None]
        published = median(each.published for each in members)
        yield suite, model, quantity, len(members), published, median(ours) if ours else None


def check() -> int:
    """Recompute the slopes of `CHECKED`; the exit code."""
    before = [each for each in kept() if (each.suite, each.model) in CHECKED]
    now = list(slopes(CHECKED))
    for old, new in zip_longest(before, now):
        if old != new:
            print(f"kept: {old}\nnow:  {new}")
    return 0 if before == now else 1


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--kept", action="store_true")
    how.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return check()
    if not options.kept:
        write(slopes())
    print(f"{'':15}{'':30}{'':8}{'':17}published  predicted  difference")
    for each in kept():
        ours = "no such mechanism" if each.predicted is None else f"{each.predicted:9.2f}"
        off = "" if each.predicted is None else f"{each.predicted - each.published:+12.2f}"
        lengths = f"{each.tokens:,} to {each.more_tokens:,}"
        head = f"{each.suite:15}{each.model:30}{each.quantity:8}{lengths:17}"
        print(f"{head}{each.published:9.2f}  {ours}{off}  {each.note}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
