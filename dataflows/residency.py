"""Which tensors stay on chip between operators.

Tensors compete by size, the smallest first. A tensor stays if, at every moment of its life, it and all
smaller ones alive fit the room set aside, *whether or not those stay themselves*. That rule is monotone:
with more room, whatever stayed still stays. (A first-fit rule is not: with more room it may admit an
earlier tensor that then crowds out two later ones.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.regions import Cut, element_bits


@dataclass
class _Life:
    """A tensor (or several names of one, around a repeated block) on the axis of regions."""

    names: set[str] = field(default_factory=set)
    size_bytes: int = 0
    first: int = 1 << 60
    last: int = -1
    uses: int = 0


def resident_tensors(cut: Cut, accelerator: Accelerator, fraction: float) -> frozenset[str]:
    """Names of the tensors that stay on chip when `fraction` of the buffers is set aside for them.

    Results and inputs of operators live where the machine keeps its inputs, weights where it keeps its
    weights; a weight is worth keeping only if it is used again. KV caches, inputs and outputs of the whole
    workload are in DRAM.
    """
    if fraction == 0 or not accelerator.buffers:
        return frozenset()
    lives = _lives(cut, accelerator)
    rooms: dict[str, list[_Life]] = {}
    for role, life in lives:
        home = accelerator.home("weight" if role == "weight" else "input")
        rooms.setdefault(str(home), []).append(life)
    stay: set[str] = set()
    for home, residents in rooms.items():
        room = int(accelerator.buffers[home].capacity_bytes * fraction) * accelerator.cores
        load = np.zeros(len(cut.regions) + 1, dtype=np.int64)
        for life in sorted(residents, key=lambda each: (each.size_bytes, min(each.names))):
            span = slice(life.first, life.last + 1)
            load[span] += life.size_bytes
            if load[span].max() <= room:
                stay |= life.names
    return frozenset(stay)


def _lives(cut: Cut, accelerator: Accelerator) -> list[tuple[str, _Life]]:
    """Life of every tensor that could stay, with its role."""
    graph = cut.graph
    alias = _carries(cut)
    lives: dict[str, _Life] = {}
    inner = {graph.operators[i].outputs[0] for region in cut.regions for i in region.operators[:-1]}
    times = [graph.times(region.anchor) for region in cut.regions]
    for position, region in enumerate(cut.regions):
        for index in region.operators:
            op = graph.operators[index]
            for name in {*op.inputs, *op.outputs} - inner:
                life = lives.setdefault(alias.get(name, name), _Life())
                life.names.add(name)
                life.first, life.last = min(life.first, position), max(life.last, position)
                life.uses += 1 if "{i}" in name else times[position]
                copies = times[position] if graph.tensors[name].role == "weight" and "{i}" in name else 1
                size = -(-graph.tensors[name].elements * element_bits(graph.tensors[name], accelerator) // 8)
                life.size_bytes = max(life.size_bytes, size * copies)
    _span_blocks(cut, lives, alias)
    fixed = {alias.get(name, name) for name in (*graph.inputs, *graph.outputs)}
    return [
        (graph.tensors[name].role, life)
        for name, life in lives.items()
        if name not in fixed
        and graph.tensors[name].role in ("activation", "index", "weight")
        and life.uses > 1
    ]


def _carries(cut: Cut) -> dict[str, str]:
    """The names around each repeated block's carry, as one tensor: copy i's result is copy i+1's operand."""
    alias: dict[str, str] = {}
    for repeat in cut.graph.repeats:
        alias[repeat.carry_out] = alias.get(repeat.carry_in, repeat.carry_in)
    return alias


def _span_blocks(cut: Cut, lives: dict[str, _Life], alias: dict[str, str]) -> None:
    """Stretch over the whole block what every copy of it needs: carries, shared weights, outer tensors."""
    graph = cut.graph
    for repeat in graph.repeats:
        inside = [p for p, region in enumerate(cut.regions) if repeat.start <= region.anchor < repeat.stop]
        shared = {
            name
            for op in graph.operators[repeat.start : repeat.stop]
            for name in op.inputs
            if "{i}" not in name
        }
        carried = alias.get(repeat.carry_in, repeat.carry_in)
        for name in {carried, *(alias.get(n, n) for n in shared)} & set(lives):
            life = lives[name]
            life.first, life.last = min(life.first, inside[0]), max(life.last, inside[-1])
            life.uses += 1
