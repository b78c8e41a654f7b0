"""Validation suites: tables of measured figures, each with what to simulate to predict it.

A suite is a YAML file. What its cases have in common may stand at the top, long tables in a CSV beside it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Evidence = Literal["silicon", "rtl", "synthesis", "model", "claim", "closed-form"]
Fidelity = Literal["event", "analytic", "cycle"]
Quantity = Literal["area_um2", "area_mm2", "power_mw", "power_w", "energy_pj"]
Tolerance = Annotated[float, Field(ge=0)]
"""A fraction: 0.1 is 10 %."""


class Common(BaseModel):
    """What a case says, or the suite for all cases that don't."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    accelerator: str | None = None
    """A preset's name, or a YAML file (relative to the suite's folder)."""
    workload: str | None = None
    """A preset's name, or a file. Left out: only what the accelerator's description says by itself can be
    asked for (`area_mm2`, `peak_power_w`, `peak_macs_per_cycle`, `clock_mhz`)."""
    overrides: tuple[str, ...] = ()
    """`arch.KEY=VALUE` and `workload.KEY=VALUE`; a case's come after the suite's."""
    fidelity: Fidelity | None = None
    """By default `event`."""
    metric: str | None = None
    """Dotted key of the JSON object that `tilewright run --format json` prints."""
    unit: str | None = None
    """Of the measured figure; shown, not converted."""
    evidence: Evidence | None = None
    """What kind of figure was measured."""
    source: str | None = None
    """Where the measured figure comes from: paper and table, or repository and licence."""


class Case(Common):
    """One measured figure."""

    name: str = ""
    """What to call it; by default what is simulated."""
    measured: Annotated[float, Field(gt=0)]
    """The figure that the prediction is held against."""
    tolerance: Tolerance | None = None
    """Largest absolute error of this case, as a fraction; by default only the suite's mean is held."""
    model: str = ""
    """How the case was put into the simulator's terms, where that took a choice."""
    note: str = ""
    """Why the prediction is off, where it is."""


class Suite(Common):
    """A validation suite."""

    name: Annotated[str, Field(min_length=1)]
    title: str = ""
    """A sentence on what is compared with what."""
    tolerance: Tolerance | None = None
    """Largest mean absolute percentage error, as a fraction; left out: reported, and held to nothing."""
    cases: tuple[Case, ...] = ()
    cases_from: str | None = None
    """A CSV file beside the suite with a case a row. Its columns are the keys of a case, and overrides
    (`arch.array.rows`, `workload.m`); an empty cell is a key left out, `overrides` are parted by spaces."""
    published: tuple[Quantity, ...] = ()
    """Take these quantities' rows of the shipped table of published designs (`published.yaml` in
    `arch/technology`), which are modelled from the technology tables without simulation."""

    @model_validator(mode="after")
    def _has_cases(self) -> Suite:
        if not (self.cases or self.cases_from or self.published):
            raise ValueError("a suite needs `cases`, or a table named by `cases_from`")
        return self


def suite_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a suite, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Suite.model_json_schema()}
