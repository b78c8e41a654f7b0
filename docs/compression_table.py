"""The table of docs/compression.md: every compression technique, simulated on one accelerator.

python -m docs.compression_table results | techniques
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import tilewright as tw
from docs.markdown import print_one, table
from docs.simulated import simulated
from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.tensors import element_bits
from tilewright.sim.quantities import binary_bytes, short
from tilewright.workloads.compression.choice import compressions
from tilewright.workloads.graph import OperatorGraph

ACCELERATOR = "many-core-server"
SHOWN = ("MNLI", "MNLI-m", "ImageNet-1K", "WMT14 En-De")
"""The datasets whose published values are shown."""
COUNTS = "test_workloads.py: counts of transformers' model"
SEARCHED = "test_compression_search.py: closed form, published size"


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    title: str
    workload: str = ""
    """Empty for a name that does not work."""
    compression: str = ""
    """The techniques, without the outer brackets."""
    why_not: str = ""
    oracle: str = ""
    """Of models; techniques have theirs."""
    overrides: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    """Overrides of the accelerator."""


def _bert(title: str, compression: str) -> Case:
    return Case(title, "bert-base", compression)


DECODE = ("phase=decode", "seq=1024")
CASES = (
    Case("BERT-base, as it is", "bert-base", oracle=COUNTS),
    _bert("stored in fp32", "{kind: quantise, weights: fp32, activations: fp32}"),
    _bert("bf16", "{kind: quantise, weights: bf16, activations: bf16}"),
    _bert("fp8", "{kind: quantise, weights: fp8, activations: fp8}"),
    _bert("int8", "{kind: quantise, weights: int8, activations: int8}"),
    _bert("int8 weights only", "{kind: quantise, weights: int8}"),
    _bert("int4 weights, groups of 128", "{kind: quantise, weights: int4, group: 128}"),
    _bert(
        "mixed: int8, int4 in feed-forward weights",
        "{kind: quantise, weights: int8, activations: int8, overrides: {'*.ffn.*.weight': int4}}",
    ),
    _bert("integer-only softmax", "{kind: quantise, softmax: integer}"),
    Case("RoBERTa-base, as it is", "roberta-base", oracle="test_workloads_load.py: from its config.json"),
    Case(
        "I-BERT: RoBERTa in int8, integer-only softmax",
        "roberta-base",
        "{kind: quantise, weights: int8, activations: int8, softmax: integer}",
    ),
    _bert("half of the heads", "{kind: prune_heads, fraction: 0.5}"),
    _bert("half of the feed-forward columns", "{kind: prune_ffn, fraction: 0.5}"),
    _bert("half of the layers", "{kind: prune_layers, fraction: 0.5}"),
    _bert("block-sparse, 32 x 32, half", "{kind: sparse_weights, pattern: block}"),
    _bert("2:4", "{kind: sparse_weights, pattern: n_m}"),
    Case(
        "2:4, on arrays with `structured`",
        "bert-base",
        "{kind: sparse_weights, pattern: n_m}",
        machine=("array.structured={n: 2, m: 4}",),
    ),
    _bert("unstructured, 90 % zeros, bitmap", "{kind: sparse_weights, pattern: unstructured, density: 0.1}"),
    Case(
        "zeros of no pattern, skipped by the array",
        why_not="arrays here skip N:M zeros only, others save bytes and no cycles",
    ),
    _bert("one set of layer weights", "{kind: share_layers}"),
    Case("ALBERT-base", "albert-base", oracle=COUNTS),
    Case("DistilBERT", "distilbert-base", oracle=COUNTS),
    Case("TinyBERT, 4 layers", "tinybert-4l", oracle=COUNTS),
    Case("TinyBERT, 6 layers", "tinybert-6l", oracle=COUNTS),
    Case("MobileBERT", "mobilebert", oracle=COUNTS),
    Case("HAT, 3.5 s on a Raspberry Pi", "hat-wmt14-ende-raspberrypi-3.5s", oracle=SEARCHED),
    Case("HAT, 6.9 s on a Raspberry Pi", "hat-wmt14-ende-raspberrypi-6.9s", oracle=SEARCHED),
    Case("AutoFormer-T", "autoformer-tiny", oracle=SEARCHED),
    Case("AutoFormer-S", "autoformer-small", oracle=SEARCHED),
    Case("AutoFormer-B", "autoformer-base", oracle=SEARCHED),
    _bert("adapters, 64 wide", "{kind: adapters}"),
    _bert("LoRA, rank 8", "{kind: lora}"),
    _bert("LoRA, merged", "{kind: lora, merged: true}"),
    _bert("chunked feed-forward, 32 tokens", "{kind: chunked_ffn, chunk: 32}"),
    Case("ViT-B/16, as it is", "vit-b16", oracle=COUNTS),
    Case("ViT-B/16, reversible", "vit-b16", "{kind: reversible}"),
    Case("GPT-2, a token after 1,023", "gpt2", overrides=DECODE, oracle=COUNTS),
    Case("GPT-2, the same on an int8 KV cache", "gpt2", "{kind: quantise, kv_cache: int8}", overrides=DECODE),
)


def main() -> None:
    """Print one of the tables."""
    tables = {"results": results, "techniques": techniques}
    print_one(tables, __doc__)


def results() -> str:
    """A row per case."""
    heads = (
        "technique", "workload", "MACs", "useful", "parameters", "weights", "peak memory", "cycles",
        "energy mJ", "DRAM", "published quality", "test",
    )  # fmt: skip
    return table(heads, (_row(case) for case in CASES), right=range(2, 10))


def techniques() -> str:
    """A row per technique: what it changes and what it needs."""
    rows = (
        (f"`{kind}`", each.changes, each.hardware, each.citation) for kind, each in compressions().items()
    )
    return table(("kind", "what it changes", "hardware that it needs", "citation"), rows)


def _row(case: Case) -> tuple[str, ...]:
    if not case.workload:
        return (case.title, f"not yet: {case.why_not}", *[""] * 10)
    model = *case.overrides, *((f"compression=[{case.compression}]",) if case.compression else ())
    graph, accelerator = (
        tw.load_workload(case.workload, model),
        tw.load_accelerator(ACCELERATOR, case.machine),
    )
    result = simulated(ACCELERATOR, case.workload, machine=case.machine, model=model)
    dram = result.traffic_bytes["dram"]
    return (
        case.title,
        f"`{case.workload}`",
        short(result.macs),
        f"{result.useful_macs / result.macs:.0%}",
        short(result.parameters),
        binary_bytes(weight_bytes(graph, accelerator)),
        binary_bytes(result.peak_memory_bytes),
        f"{result.cycles:,}",
        f"{1e3 * result.energy_j['total']:.3g}",
        binary_bytes(dram.read + dram.write),
        quality(graph),
        case.oracle or _oracle(case.compression),
    )


def weight_bytes(graph: OperatorGraph, accelerator: Accelerator) -> int:
    """Bytes of all weights in memory, indices and scales included; those that layers share once."""
    copies: dict[str, int] = {}
    plain = graph.expand()
    for op in plain.operators:
        copies |= {name: 1 for name in op.inputs if plain.tensors[name].role == "weight"}
    return sum(
        ceil(plain.tensors[name].elements * element_bits(plain.tensors[name], accelerator) / 8)
        for name in copies
    )


def quality(graph: OperatorGraph) -> str:
    """What was published of exactly this model: a value for each split and source, these beside it."""
    found = []
    for key, values in graph.metadata.items():
        if key.startswith("quality, "):
            pairs = dict(value.rsplit(" ", 1) for value in values.split("; "))
            shown = [f"{name} {pairs[name]}" for name in SHOWN if name in pairs]
            found += [f"{each} ({key.removeprefix('quality, ')})" for each in shown]
    return "; ".join(found) or "—"


def _oracle(compression: str) -> str:
    kind = compression.removeprefix("{kind: ").partition(",")[0].rstrip("}")
    return compressions()[kind].oracle.removeprefix("tests/")


if __name__ == "__main__":
    main()
