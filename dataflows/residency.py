"""Which tensors stay on chip between operators.

Tensors compete by size, the smallest first. A tensor stays if, at every moment of its life, it and all
smaller ones alive fit the room set aside, *whether or not those stay themselves*. That rule is monotone:
with more room, whatever stayed still stays. (A first-fit rule is not: with more room it may admit an
earlier tensor that then crowds out two later ones.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.regions import Cut
from tilewright.dataflows.tensors import element_bits
from tilewright.workloads.operators import in_copies


@dataclass
class _Life:
    """A tensor on the axis of regions."""

    size_bytes: int = 0
    first: int = 1 << 60
    last: int = -1
    uses: int = 0

    def reach(self, position: int) -> None:
        """Be alive at a position."""
        self.first, self.last = min(self.first, position), max(self.last, position)


def resident_tensors(cut: Cut, machine: Machine) -> frozenset[str]:
    """Names of the tensors that stay in what the machine sets aside for them.

    Results and inputs of operators live where the machine keeps its inputs, weights where it keeps its
    weights; a weight is worth keeping only if it is used again. KV caches, inputs and outputs of the whole
    workload are in DRAM. The copies of a repeated block decide alike.
    """
    accelerator = machine.accelerator
    if not machine.set_aside:
        return frozenset()
    rooms: dict[str, list[dict[str, _Life]]] = {}
    for role, group in _groups(cut, accelerator):
        home = accelerator.home("weight" if role == "weight" else "input")
        rooms.setdefault(str(home), []).append(group)
    stay: set[str] = set()
    for home, groups in rooms.items():
        room = machine.resident_bytes(home) * accelerator.cores
        load = np.zeros(len(cut.regions) + 1, dtype=np.int64)
        for group in sorted(groups, key=_priority):
            spans = [slice(life.first, life.last + 1) for life in group.values()]
            for span, life in zip(spans, group.values(), strict=True):
                load[span] += life.size_bytes
            if all(load[span].max() <= room for span in spans):
                stay.update(group)
    return frozenset(stay)


def _priority(group: dict[str, _Life]) -> tuple[int, str]:
    """The smallest first."""
    return max(life.size_bytes for life in group.values()), min(group)


def _groups(cut: Cut, accelerator: Accelerator) -> list[tuple[str, dict[str, _Life]]]:
    """(role, lives by name) of every tensor that could stay; what must decide alike is together."""
    graph = cut.graph
    lives = _lives(cut, accelerator)
    _span_blocks(cut, lives)
    alias: dict[str, str] = {}
    for repeat in graph.repeats:
        alias[repeat.carry_out] = alias.get(repeat.carry_in, repeat.carry_in)
    groups: dict[str, dict[str, _Life]] = {}
    for name, life in lives.items():
        groups.setdefault(alias.get(name, name), {})[name] = life
    fixed = {*graph.inputs, *graph.outputs}
    return [
        (graph.tensors[name].role, group)
        for name, group in groups.items()
        if fixed.isdisjoint(group)
        and graph.tensors[name].role in ("activation", "index", "weight")
        and sum(life.uses for life in group.values()) > 1
    ]


def _lives(cut: Cut, accelerator: Accelerator) -> dict[str, _Life]:
    """Where each tensor is first and last touched, how often, and how large it is."""
    graph = cut.graph
    lives: dict[str, _Life] = {}
    inner = {graph.operators[i].outputs[0] for region in cut.regions for i in region.operators[:-1]}
    for position, region in enumerate(cut.regions):
        times = graph.times(region.anchor)
        names = {
            n for i in region.operators for n in (*graph.operators[i].inputs, *graph.operators[i].outputs)
        }
        for name in names - inner:
            tensor = graph.tensors[name]
            copies = times if tensor.role == "weight" and in_copies(name) else 1
            life = lives.setdefault(name, _Life())
            life.reach(position)
            life.uses += 1 if in_copies(name) else times
            size = int(-(-tensor.elements * element_bits(tensor, accelerator) // 8)) * copies
            life.size_bytes = max(life.size_bytes, size)
    return lives


def _span_blocks(cut: Cut, lives: dict[str, _Life]) -> None:
    """Stretch over the whole block what every copy of it needs, and to its end what the next copy takes."""
    graph = cut.graph
    for repeat in graph.repeats:
        inside = [p for p, region in enumerate(cut.regions) if repeat.start <= region.anchor < repeat.stop]
        read = {name for op in graph.operators[repeat.start : repeat.stop] for name in op.inputs}
        for name in {n for n in read if not in_copies(n)} - {repeat.carry_in}:
            if name in lives:
                lives[name].reach(inside[0])
                lives[name].reach(inside[-1])
        if repeat.carry_in in lives:
            lives[repeat.carry_in].reach(inside[0])
        lives[repeat.carry_out].reach(inside[-1])
