"""An accelerator whose numbers are columns: one value per design point.

Closed forms work on columns as they do on numbers, so an accelerator with columns in some places answers for
as many machines at once. Only what no closed form branches on may be a column (`COLUMNS`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.array import Array
from tilewright.dataflows.arith import Ints
from tilewright.dataflows.least import OneMachine
from tilewright.dataflows.least_traffic import Numbers
from tilewright.dataflows.machine import Machine

OF_ARRAY = ("array.rows", "array.cols", "array.count")
OF_RATES = ("clock_mhz", "dram.bytes_per_cycle", "dram.latency_cycles")
COLUMNS = (*OF_ARRAY, *OF_RATES, "vector.lanes")
"""Keys that may be columns."""

Column = NDArray[np.int64] | NDArray[np.float64]


def with_values(accelerator: Accelerator, values: Mapping[str, Any]) -> Accelerator:
    """A copy with dotted keys set to numbers or to columns, which nobody checks again."""
    blocks: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        block, _, name = key.rpartition(".")
        blocks.setdefault(block, {})[name] = value
    update = blocks.pop("", {})
    for block, changed in blocks.items():
        update[block] = getattr(accelerator, block).model_copy(update=changed)
    return accelerator.model_copy(update=update)


@dataclass(frozen=True)
class Columns:
    """The rates (`tilewright.dataflows.least.Rates`) of as many machines as columns have rows.

    `columns`: of keys in `COLUMNS`, all equally long. `machine` is that of the accelerator without them.
    """

    machine: Machine
    columns: Mapping[str, Column]

    @cached_property
    def accelerator(self) -> Accelerator:
        """All of them in one."""
        return with_values(self.machine.accelerator, self.columns)

    @property
    def array(self) -> Array:
        """See `Rates`."""
        return self.accelerator.array

    @property
    def lanes(self) -> Numbers:
        """See `Rates`."""
        return self.accelerator.vector.lanes

    @cached_property
    def peak_moved(self) -> Column:
        """See `Rates`."""
        return self._of_each([rates.peak_moved for rates in self._distinct])

    @cached_property
    def latency(self) -> Column:
        """See `Rates`."""
        return self._of_each([rates.latency for rates in self._distinct])

    @property
    def widths(self) -> Sequence[int]:
        """See `Rates`."""
        return self.machine.widths

    def prefetch(self, size_bytes: int) -> Column:
        """See `Rates`."""
        if size_bytes not in self._prefetches:
            self._prefetches[size_bytes] = self._of_each([r.prefetch(size_bytes) for r in self._distinct])
        return self._prefetches[size_bytes]

    @cached_property
    def _prefetches(self) -> dict[int, Column]:
        return {}

    @cached_property
    def _rate_rows(self) -> tuple[Column, Ints]:
        """Distinct rows of the columns that DRAM's timing depends on, and which of them each point has."""
        chosen = [np.asarray(self.columns[key], dtype=np.float64) for key in self._rate_keys]
        if not chosen:
            return np.zeros((1, 0)), np.zeros(len(next(iter(self.columns.values()))), dtype=np.int64)
        rows, inverse = np.unique(np.stack(chosen, axis=1), axis=0, return_inverse=True)
        return rows, inverse.reshape(-1)

    @property
    def _rate_keys(self) -> list[str]:
        return [key for key in OF_RATES if key in self.columns]

    @cached_property
    def _distinct(self) -> list[OneMachine]:
        found = []
        for row in self._rate_rows[0]:
            values = dict(zip(self._rate_keys, map(float, row), strict=True))
            if "dram.latency_cycles" in values:
                values["dram.latency_cycles"] = int(values["dram.latency_cycles"])
            accelerator = with_values(self.machine.accelerator, values)
            found.append(OneMachine(Machine(accelerator, self.machine.set_aside)))
        return found

    def _of_each(self, values: list[float] | list[int]) -> Column:
        return np.asarray(values)[self._rate_rows[1]]
