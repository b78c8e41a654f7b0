"""How much memory a workload needs: the most bytes that are live at once.

Weights and KV caches are there for the whole run, all layers' of them. An activation is live from the region
that makes it to the last one that reads it; what is handed on inside a region (a matmul's result to its
element-wise tail, scores where attention is fused) is never stored. Tensors that the mapper keeps on chip are
counted as well, so the figure depends on the workload, on the width of the machine's elements and on what it
fuses, and not otherwise on the sizes of its buffers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.regions import Cut, cut
from tilewright.dataflows.tensors import element_bits
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import Role, Tensor, in_copies

_STEP = re.compile(r"^(prefill|decode\d+)\.")
_COPIES = 3
"""Of a repeated block: the first, the last, and one for all between, whose live activations are equal."""


def peak_memory_bytes(graph: OperatorGraph, accelerator: Accelerator, plan: Cut | None = None) -> int:
    """The most bytes of weights, KV caches and activations that are live at the same time; fused as in the
    `plan`'s regions, or by default only what the workload itself says."""
    always = _stored_bytes(graph, accelerator, "weight") + _stored_bytes(graph, accelerator, "kv_cache")
    return always + _peak_activation_bytes(graph, accelerator, plan)


def _stored_bytes(graph: OperatorGraph, accelerator: Accelerator, role: Role) -> int:
    """All tensors of a role: each copy of a repeated block has its own, the steps of a generation share
    theirs (its KV cache is as large as the largest of them leaves it)."""
    largest: dict[str, int] = {}
    for name, times in _uses(graph):
        tensor = graph.tensors[name]
        if tensor.role == role:
            size = _bytes(tensor, accelerator) * (times if in_copies(name) else 1)
            shared = _STEP.sub("", name)
            largest[shared] = max(largest.get(shared, 0), size)
    return sum(largest.values())


def _uses(graph: OperatorGraph) -> Iterable[tuple[str, int]]:
    """Every mention of a tensor by an operator, and how often that operator runs."""
    for index, op in enumerate(graph.operators):
        times = graph.times(index)
        yield from ((name, times) for name in (*op.inputs, *op.outputs))


def _peak_activation_bytes(graph: OperatorGraph, accelerator: Accelerator, plan: Cut | None) -> int:
    regions = plan.regions if plan else ()
    attention = any(region.softmax is not None for region in regions)
    chains = any(region.second is not None and region.softmax is None for region in regions)
    few = tuple(replace(repeat, times=min(repeat.times, _COPIES)) for repeat in graph.repeats)
    plain = cut(replace(graph, repeats=few).expand(), attention=attention, chains=chains)
    change = [0] * (len(plain.regions) + 1)
    for name, (first, last) in _lives(plain).items():
        tensor = plain.graph.tensors[name]
        if tensor.role in ("activation", "index"):
            size = _bytes(tensor, accelerator)
            change[first] += size
            change[last + 1] -= size
    return max(accumulate(change))


def _lives(plain: Cut) -> dict[str, tuple[int, int]]:
    """First and last region of every tensor that is stored; inputs are there from the start, outputs stay to
    the end."""
    graph, end = plain.graph, len(plain.regions) - 1
    lives = dict.fromkeys(graph.inputs, (0, 0))
    for position, region in enumerate(plain.regions):
        members = [graph.operators[index] for index in region.operators]
        inside = {name for op in members[:-1] for name in op.outputs}
        for name in {name for op in members for name in (*op.inputs, *op.outputs)} - inside:
            lives[name] = (lives.get(name, (position, 0))[0], position)
    return lives | {name: (lives[name][0], end) for name in graph.outputs}


def _bytes(tensor: Tensor, accelerator: Accelerator) -> int:
    return int(-(-tensor.elements * element_bits(tensor, accelerator) // 8))
