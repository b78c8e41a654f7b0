"""The tables of docs/sparse-units.md: accelerators that have a sparse-attention unit, units without
one, and a cascade.

python -m docs.sparse_units_table presets | gathering | cascade
"""

from __future__ import annotations

import tilewright as tw
from docs.markdown import print_one, table
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import preset_names
from tilewright.arch.sparse_search import SpAtten
from tilewright.dataflows.sparse.cascade import schedule
from tilewright.sim.result import Result
from tilewright.workloads.graph import OperatorGraph

DENSE = ("attention_unit=null", "mapper.attention=[unfused, flash]")
CHOSEN = ("kept", "recall", "kept weight", "imbalance")
GATHERING = (
    "{kind: gather, keep: 128}",
    "{kind: gather, keep: 128, from_dram: true}",
    "{kind: gather, keep: 128, rows: 64}",
    "{kind: lsh, rounds: 1}",
    "{kind: lsh, rounds: 2}",
    "{kind: lsh, rounds: 2, chunk: 16}",
)


def main() -> None:
    """Print one of the tables."""
    print_one({"presets": presets, "gathering": gathering, "cascade": cascade}, __doc__)


def presets() -> str:
    """A row per shipped accelerator that has a unit."""
    heads = ("preset", *CHOSEN, "cycles", "dense", "effective GOPS")
    rows = [_preset(name) for name in preset_names() if _chooses(tw.load_accelerator(name))]
    return table(heads, rows, right=range(1, len(heads)))


def _chooses(accelerator: Accelerator) -> bool:
    """Whether it has a unit that leaves pairs out by itself."""
    unit = accelerator.attention_unit
    return unit is not None and unit.kind != "streaming"


def _preset(name: str) -> tuple[str, ...]:
    workload = _workload()
    result = tw.simulate(tw.load_accelerator(name), workload)
    dense = tw.simulate(tw.load_accelerator(name, DENSE), workload)
    gops = 2 * workload.macs / result.latency_s / 1e9
    return (f"`{name}`", *_chosen(result, 1), f"{result.cycles:,}", f"{dense.cycles:,}", f"{gops:,.0f}")


def gathering() -> str:
    """A row per unit that no preset has, gathering and hashing, on `edge-npu-large`."""
    heads = ("`attention_unit`", *CHOSEN, "cycles", "waits for gathering")
    workload = _workload()
    dense = tw.simulate(tw.load_accelerator("edge-npu-large", DENSE), workload)
    rows = [("none", "100%", "", "", "", f"{dense.cycles:,}", "")]
    for unit in GATHERING:
        result = tw.simulate(tw.load_accelerator("edge-npu-large", [f"attention_unit={unit}"]), workload)
        waits = f"{result.stalls['prediction_stall']:,}"
        rows.append((f"`{unit}`", *_chosen(result, 0), f"{result.cycles:,}", waits))
    return table(heads, rows, right=range(1, len(heads)))


def cascade() -> str:
    """A row per layer of a model on `spatten`, and one of all layers with nothing pruned."""
    heads = ("layer", "tokens", "heads", "kept", "kept weight", "cycles in attention", "beside it", "dense")
    graph, machine = tw.load_workload("bert-base", ["seq=128"]), tw.load_accelerator("spatten")
    unit = machine.attention_unit
    assert isinstance(unit, SpAtten)
    pruned, whole = (tw.simulate(each, graph) for each in (machine, tw.load_accelerator("spatten", DENSE)))
    layers = len(pruned.sparse_attention)
    plan = schedule(unit, 128, 12, layers)
    rows = []
    for number, found in enumerate(pruned.sparse_attention.values()):
        inside, beside = _layer_cycles(pruned, number)
        kept = f"{found['kept'] / found['pairs']:.1%}", f"{found['kept_mass']:.0%}"
        cycles = (f"{each:,}" for each in (inside, beside, sum(_layer_cycles(whole, number))))
        rows.append((str(number), str(plan.tokens[number]), str(plan.heads[number]), *kept, *cycles))
    return table(heads, rows, right=range(len(heads)))


def _layer_cycles(result: Result, number: int) -> tuple[int, int]:
    """Of a layer's scores, softmax and context; of the rest of it."""
    core = {f"layers.{number}.attention.{name}" for name in ("scores", "scale", "softmax", "context")}
    mine = [row for row in result.operators if row.name.startswith(f"layers.{number}.")]
    inside = sum(row.cycles for row in mine if row.name in core)
    return inside, sum(row.cycles for row in mine) - inside


def _workload() -> OperatorGraph:
    return tw.load_workload("attention", ["heads=4", "seq=512", "head_dim=64"])


def _chosen(result: Result, decimals: int) -> tuple[str, str, str, str]:
    """What `CHOSEN` names; `decimals` of the percentage that is kept."""
    found = result.sparse_attention["scores"]
    shares = [f"{found[name]:.0%}" if found["recall"] else "" for name in ("recall", "kept_mass")]
    return f"{found['kept'] / found['pairs']:.{decimals}%}", shares[0], shares[1], f"{found['imbalance']:.2f}"


if __name__ == "__main__":
    main()
