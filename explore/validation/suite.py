"""Validation suites: tables of measured figures, each with what to simulate to predict it.

A suite is a YAML file. What its cases have in common may stand at the top, long tables in a CSV beside it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tilewright.description.documented import Documented

Evidence = Literal["silicon", "rtl", "synthesis", "model", "claim", "closed-form"]
Fidelity = Literal["event", "analytic", "cycle"]
Quantity = Literal["area_um2", "area_mm2", "power_mw", "power_w", "energy_pj"]
Tolerance = Annotated[float, Field(ge=0)]
"""A fraction: 0.1 is 10 %."""


def _kind_of_measured(value: object) -> str:
    return "rtl" if value == "rtl" else "figure"


Measured = Annotated[
    Annotated[float, Field(json_schema_extra={"minimum": 0}), Tag("figure")]
    | Annotated[Literal["rtl"], Tag("rtl")],
    Discriminator(_kind_of_measured),
]
"""A figure, or how to obtain it."""


class Common(Documented):
    """What a case says, or the suite for all cases that don't."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

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
    """Dotted key of the JSON object that `tilewright run --format json` prints, or such keys with numbers,
    `+ - * /` and brackets between them: `100 * stalls.weight_stall / cycles`."""
    unit: str | None = None
    """Of the measured figure; shown, not converted."""
    evidence: Evidence | None = None
    """What kind of figure was measured."""
    source: str | None = None
    """Where the measured figure comes from: paper and table, or repository and licence."""


class Baseline(Documented):
    """Another run that a case is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    accelerator: str | None = None
    """By default the case's."""
    workload: str | None = None
    """By default the case's, with its overrides of it."""
    overrides: tuple[str, ...] = ()
    """The case's `arch.` overrides are not taken over; its `workload.` ones are, where no `workload` is given
    here, and these come after them."""


class Case(Common):
    """One measured figure."""

    name: str = ""
    """What to call it; by default what is simulated."""
    points: bool = False
    """Whether the figures are shares in per cent, whose error is their difference in points: 0.06 is 6
    points, and so for tolerances."""
    measured: Measured
    """The figure that the prediction is held against. Above 0, unless compared in points. `rtl`: measured
    when the suite is run, by simulating the accelerator's attention unit; the metric is `cycles`."""
    baseline: Baseline | None = None
    """With it, the predicted figure is the baseline's over this case's: a speed-up, or by how much less
    energy or traffic."""
    tolerance: Tolerance | None = None
    """Largest absolute error of this case, as a fraction; by default only the suite's mean is held."""
    model: str = ""
    """How the case was put into the simulator's terms, where that took a choice."""
    note: str = ""
    """Why the prediction is off, where it is."""

    @field_validator("measured")
    @classmethod
    def _is_compared(cls, measured: float | Literal["rtl"], info: ValidationInfo) -> float | Literal["rtl"]:
        if measured == "rtl":
            return measured
        if measured < 0 or (measured == 0 and not info.data.get("points")):
            hint = "; a share in per cent is compared by `points: true`" if measured == 0 else ""
            raise ValueError(f"must be greater than 0, not {measured:g}{hint}")
        return measured


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
