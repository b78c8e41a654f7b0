"""Loop nests that are remembered from plan to plan are those that a new search finds."""

from __future__ import annotations

import pytest

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows import chosen as remembering
from tilewright.dataflows.chosen import forget
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.mapper import Known, Mapping, Request, best_mapping
from tilewright.dataflows.plan import plan

BLOCK = ["d=64", "heads=2", "ffn=128", "seq=32"]
LONGER = ["d=64", "heads=2", "ffn=128", "seq=32", "attention.kind=linformer", "attention.k=8"]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What is searched for from here on."""
    forget()
    requests: list[Request] = []

    def search(request: Request, machine: Machine, known: Known) -> Mapping:
        requests.append(request)
        return best_mapping(request, machine, known)

    monkeypatch.setattr(remembering, "best_mapping", search)
    return requests


def machine(*overrides: str) -> Accelerator:
    return tw.load_accelerator("edge-npu-small", overrides)


def test_what_was_chosen_is_not_searched_again(searched: list[Request]) -> None:
    """A second plan of an equal workload on an equal accelerator is the first one, without any search."""
    first = plan(tw.load_workload("encoder_block", BLOCK), machine())
    assert len(searched) >= len(first.mappings) > 3
    searched.clear()
    second = plan(tw.load_workload("encoder_block", BLOCK), machine("name=another"))
    assert searched == []
    assert second.mappings == first.mappings
    assert second.cycles == first.cycles
    forget()
    assert plan(tw.load_workload("encoder_block", BLOCK), machine()).mappings == first.mappings
    assert searched


def test_another_workload_finds_the_regions_that_it_shares(searched: list[Request]) -> None:
    """With another attention, only regions around it are searched for; the plan is that of a new search."""
    plan(tw.load_workload("encoder_block", BLOCK), machine())
    before = set(searched)
    searched.clear()
    shared = plan(tw.load_workload("encoder_block", LONGER), machine())
    assert searched
    assert not before & set(searched)
    assert before & set(shared.mappings)
    forget()
    alone = plan(tw.load_workload("encoder_block", LONGER), machine())
    assert (alone.cycles, alone.mappings) == (shared.cycles, shared.mappings)


@pytest.mark.parametrize("override", ["clock_mhz=501", "array.rows=8", "mapper.effort=0", "cores=2"])
def test_another_machine_is_searched_anew(override: str, searched: list[Request]) -> None:
    """Whatever differs in the description: nothing is taken over."""
    workload = tw.load_workload("encoder_block", BLOCK)
    plan(workload, machine())
    searched.clear()
    other = plan(workload, machine(override))
    assert set(searched) >= set(other.mappings)


def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """More regions than are kept give the same plan."""
    workload = tw.load_workload("encoder_block", BLOCK)
    forget()
    whole = plan(workload, machine())
    forget()
    monkeypatch.setattr(remembering, "REGIONS", 2)
    short = plan(workload, machine())
    assert (short.cycles, short.mappings) == (whole.cycles, whole.mappings)
