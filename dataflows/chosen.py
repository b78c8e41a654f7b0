"""Loop nests that were chosen before on an accelerator.

Which one is best depends on the region and the machine alone. Equal regions come back in other workloads
(layers of the same width, with another attention between them), and in the next run of the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.machine import Machine, SetAside
from tilewright.dataflows.mapper import Known, Mapping, Request, best_bound, best_mapping

ACCELERATORS = 8
"""How many are remembered: those used last."""
REGIONS = 256
"""How many regions of each, before all of them are forgotten; a network has a tenth as many."""

_Asked = tuple[Request, SetAside]
"""A region, and what of the buffers is set aside for tensors that stay."""
_Answer = TypeVar("_Answer", int, Mapping)


class Chosen:
    """What is known of one accelerator. Answers are those of `best_bound` and `best_mapping`."""

    def __init__(self) -> None:
        self._bounds: dict[_Asked, int] = {}
        self._mappings: dict[_Asked, Mapping] = {}

    def bound(self, request: Request, machine: Machine, known: Known) -> int:
        """Least lower bound on the cycles. Raises `InputError` where nothing fits."""
        asked = request, machine.set_aside
        return _remembered(self._bounds, asked, lambda: best_bound(request, machine, known))

    def mapping(self, request: Request, machine: Machine, known: Known) -> Mapping:
        """The loop nest of least cycles. Where it has to be searched for, `known` is added to."""
        asked = request, machine.set_aside
        return _remembered(self._mappings, asked, lambda: best_mapping(request, machine, known))


def _remembered(answers: dict[_Asked, _Answer], asked: _Asked, search: Callable[[], _Answer]) -> _Answer:
    found = answers.get(asked)
    if found is None:
        found = search()
        if len(answers) >= REGIONS:
            answers.clear()
        answers[asked] = found
    return found


def chosen(accelerator: Accelerator) -> Chosen:
    """What is known of an accelerator; equal descriptions share it."""
    return _chosen(accelerator.model_dump_json(exclude={"name", "description"}))


def forget() -> None:
    """Search anew from now on."""
    _chosen.cache_clear()


@lru_cache(maxsize=ACCELERATORS)
def _chosen(_description: str) -> Chosen:
    return Chosen()
