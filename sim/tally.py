"""What is noted while the SimPy machine runs: cycles by unit and cause, and the slices of a trace."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.sim.result import Slice


@dataclass
class Tally:
    """Cycles by unit and cause, added up while a region runs."""

    array_busy: int = 0
    weight_shift: int = 0
    fill_drain: int = 0
    weight_stall: int = 0
    input_stall: int = 0
    output_stall: int = 0
    vector_stall: int = 0
    prediction_stall: int = 0
    port_stall: int = 0
    vector_busy: int = 0
    predictor_busy: int = 0
    dma_busy: int = 0

    def values(self) -> tuple[int, ...]:
        """All counts, in order."""
        return tuple(vars(self).values())

    def add(self, counts: tuple[int, ...], times: int) -> None:
        """Add `times` these counts."""
        for name, count in zip(vars(self), counts, strict=True):
            setattr(self, name, getattr(self, name) + count * times)


@dataclass
class Log:
    """A region's counts, and its slices if it is traced."""

    trace: bool = False
    tally: Tally = field(default_factory=Tally)
    slices: list[Slice] = field(default_factory=list)

    def record(self, unit: str, name: str, start: int, end: int) -> None:
        """Keep a slice for the trace."""
        if self.trace and end > start:
            self.slices.append(Slice(unit, name, start, end))
