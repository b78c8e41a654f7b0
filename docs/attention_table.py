"""The tables of docs/attention.md, from what `benchmarks.attention` and `benchmarks.growth` keep.

python -m docs.attention_table overview | layer | decode | where | where-decode | growth
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import log
from pathlib import Path

from benchmarks.attention import (
    CHECKED_TOKENS,
    EXPERTS,
    GROUPED,
    MULTI_QUERY,
    NEEDS_A_FILE,
    TOKENS,
    Row,
    kept,
)
from benchmarks.growth import kept as kept_slopes
from benchmarks.growth import medians
from docs.markdown import print_one, table
from tilewright.sim.quantities import fraction_of, short
from tilewright.workloads.attention.choice import mechanisms

ROOT = Path(__file__).resolve().parent.parent

_OTHERS = {
    GROUPED: ("dense", "O(N^2)", "Ainslie et al., GQA, arXiv:2305.13245"),
    MULTI_QUERY: ("dense", "O(N^2)", 'Shazeer, "One Write-Head is All You Need", arXiv:1911.02150'),
    EXPERTS: ("mixture of experts", "O(N^2)", "Jiang et al., Mixtral of Experts, arXiv:2401.04088"),
}
"""Class, complexity and paper of what is not a kind of attention."""


def main() -> None:
    """Print one of the tables."""
    tables = {
        "overview": overview, "layer": layer, "decode": decode, "where": where,
        "where-decode": where_decode, "growth": growth,
    }  # fmt: skip
    print_one(tables, __doc__)


def overview() -> str:
    """A row per mechanism: what it is, what the paper says of its complexity, how its cycles grow."""
    heads = ("mechanism", "class", "complexity", *_growth_heads(), "oracle test", "paper")
    lines = []
    for rows in _cases("layer").values():
        taxonomy, complexity, paper = _described(rows[0])
        growths = _growths(rows)
        lines.append((_shown(rows[0]), taxonomy, complexity, *growths, _oracle(rows[0].kind), paper))
    known, dashes = mechanisms()[NEEDS_A_FILE], ("—",) * len(_growth_heads())
    oracle = _oracle(NEEDS_A_FILE)
    described = (", ".join(known.taxonomy), known.complexity, *dashes, oracle, known.citation)
    lines.append((f"`{NEEDS_A_FILE}` ¹", *described))
    return table(heads, lines, right=range(3, len(heads) - 2))


def layer() -> str:
    """A row per mechanism and length, all tokens at once."""
    return _numbers(_cases("layer"))


def decode() -> str:
    """The same for one token, the others being in the cache."""
    return _numbers(_cases("decode"))


def where() -> str:
    """What the cycles of a layer go into at one length."""
    return _where("layer")


def where_decode() -> str:
    """The same for a decode step."""
    return _where("decode")


def _where(phase: str) -> str:
    heads = (
        f"mechanism, {CHECKED_TOKENS:,} tokens", "projections, FFN", "scores, context", "softmax",
        "gather, scatter", "sort, top-k, scan", "other vector", "DRAM busy", "useful MACs of peak",
    )  # fmt: skip
    lines = []
    for rows in _cases(phase).values():
        row = next(row for row in rows if row.tokens == CHECKED_TOKENS)
        parts = (
            row.projection_cycles, row.product_cycles, row.softmax_cycles, row.move_cycles,
            row.order_cycles, row.vector_cycles, row.dram_busy_cycles,
        )  # fmt: skip
        used = row.useful_macs / (row.peak_macs_per_cycle * row.cycles)
        lines.append((_shown(row), *(_share(part / row.cycles) for part in parts), _share(used)))
    return table(heads, lines, right=range(1, len(heads)))


def growth() -> str:
    """Medians of the published slopes, and of ours."""
    heads = ("measured by", "model", "time", "here", "off by", "memory", "here", "off by")
    found: dict[tuple[str, str], dict[str, tuple[str, str, str]]] = {}
    for suite, model, quantity, _, published, ours in medians(kept_slopes()):
        cells = f"{published:.2f}", "—" if ours is None else f"{ours:.2f}"
        off = "—" if ours is None else f"{ours - published:+.2f}"
        found.setdefault((suite, model), {})[quantity] = (*cells, off)
    lines = [(*key, *row["time"], *row["memory"]) for key, row in found.items()]
    return table(heads, lines, right=range(2, len(heads)))


def _cases(phase: str) -> dict[str, list[Row]]:
    """The kept rows of a phase by name."""
    found: dict[str, list[Row]] = {}
    for row in kept():
        if row.phase == phase:
            found.setdefault(row.name, []).append(row)
    return found


def _numbers(cases: dict[str, list[Row]]) -> str:
    heads = ("mechanism", "tokens", "cycles", "of dense", "energy", "DRAM", "peak memory", "useful MACs")
    dense = {row.tokens: row.cycles for row in cases["dense"]}
    lines = []
    for rows in cases.values():
        columns = (
            [f"{row.tokens // 1024} K" for row in rows],
            [short(row.cycles) for row in rows],
            [f"{row.cycles / dense[row.tokens]:.3g}" for row in rows],
            [_joules(row.energy_j) for row in rows],
            [_bytes(row.dram_bytes) for row in rows],
            [_bytes(row.peak_memory_bytes) for row in rows],
            [_useful(row) for row in rows],
        )
        lines.append((_shown(rows[0]), *("<br>".join(column) for column in columns)))
    return table(heads, lines, right=range(1, len(heads)))


def _useful(row: Row) -> str:
    share = row.useful_macs / row.macs
    return "100 %" if row.useful_macs == row.macs else f"{min(99.9, 100 * share):.1f} %"


def _joules(energy: float) -> str:
    factor, unit = fraction_of(energy, "J")
    return f"{energy / factor:#.3g}".removesuffix(".") + f" {unit}"


def _bytes(size: int) -> str:
    return f"{short(size)}B"


def _shown(row: Row) -> str:
    """What can be typed stands in the type of code."""
    return f"`{row.name}`" if row.name.partition(" ")[0] == row.kind and "LLaMA" not in row.name else row.name


def _described(row: Row) -> tuple[str, str, str]:
    """Class, complexity and paper."""
    if row.name in _OTHERS:
        return _OTHERS[row.name]
    known = mechanisms()[row.kind]
    return ", ".join(known.taxonomy), known.complexity, known.citation


def _oracle(kind: str) -> str:
    """A link to the test that compares with a public implementation, if there is one."""
    test = Path("tests/oracles") / f"test_{'mixture' if kind == 'moe' else kind}.py"
    return f"[{test.name}](../{test})" if (ROOT / test).is_file() else "not yet"


def _growth_heads() -> tuple[str, ...]:
    return tuple(f"{few // 1024} K → {many // 1024} K" for few, many in pairwise(TOKENS))


def _growths(rows: Sequence[Row]) -> Iterable[str]:
    """Slopes of the cycles between neighbouring lengths, on logarithmic axes."""
    for few, many in pairwise(rows):
        yield f"{log(many.cycles / few.cycles) / log(many.tokens / few.tokens):.2f}"


def _share(part: float) -> str:
    if not part:
        return ""
    return "<1 %" if part < 0.005 else f"{part:.0%}".replace("%", " %")


if __name__ == "__main__":
    main()
