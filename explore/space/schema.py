"""Space files: which accelerators and workloads are looked at, and what is wanted of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from tilewright.description.documented import Documented

Goal = Literal["minimize", "maximize"]
Method = Literal["grid", "random", "sobol", "nsga2", "tpe"]
Fidelity = Literal["analytic", "event", "ladder"]
LARGEST_LOG2 = 62


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {value!r}")
    return value


Number = Annotated[Any, AfterValidator(_number), WithJsonSchema({"type": "number"})]
"""An integer stays one."""


class Part(Documented):
    """Base of a space file's parts."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


class SpaceWorkload(Part):
    """One of the workloads that every point is run with."""

    workload: Annotated[str, Field(min_length=1)]
    """A preset's name or a file (relative to the space file's folder)."""
    overrides: tuple[str, ...] = ()
    """`workload.KEY=VALUE`, the same for all points."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often it runs: cycles, latency, energy and traffic of a point are the sums over its workloads times
    these."""
    name: str = ""
    """What to call it in the columns of several workloads, `<name>:latency_s`; by default the workload's
    name."""


class Parameter(Part):
    """What one key may be. One of `values`, `range` and `log2`."""

    values: Annotated[tuple[JsonValue, ...], Field(min_length=1)] | None = None
    """The values themselves."""
    range: Annotated[tuple[Number, ...], Field(min_length=2, max_length=3)] | None = None
    """`[low, high]` or `[low, high, step]`, both ends included. Whole numbers without a step go in steps of
    1; other numbers without a step may be anything in between, which the method `grid` can't enumerate."""
    log2: Annotated[tuple[int, ...], Field(min_length=2, max_length=2)] | None = None
    """`[low, high]`: the powers of two from 2**low to 2**high."""
    when: dict[str, JsonValue] | None = None
    """Parameters above this one, each with a value (or a list of values) that it must have for this one to be
    varied; otherwise the point leaves it as the accelerator or workload has it."""

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Parameter:
        given = [kind for kind in ("values", "range", "log2") if getattr(self, kind) is not None]
        if len(given) != 1:
            found = " and ".join(f"`{kind}`" for kind in given) or "none"
            raise ValueError(f"needs one of `values`, `range` and `log2`; here: {found}")
        return self

    @field_validator("range")
    @classmethod
    def _rises(cls, ends: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if ends is not None and ends[0] > ends[1]:
            raise ValueError(f"the low end {ends[0]} is above the high end {ends[1]}")
        if ends is not None and len(ends) == 3 and ends[2] <= 0:
            raise ValueError(f"the step must be greater than 0, not {ends[2]}")
        return ends

    @field_validator("log2")
    @classmethod
    def _are_exponents(cls, ends: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if ends is not None and not 0 <= ends[0] <= ends[1] <= LARGEST_LOG2:
            low, high = ends
            raise ValueError(
                f"[{low}, {high}] are no exponents from 0 to {LARGEST_LOG2} in rising order: "
                "[3, 6] stands for 8, 16, 32, 64"
            )
        return ends


class Objective(Part):
    """A figure that points are compared by."""

    name: Annotated[str, Field(min_length=1)]
    """A key of a point's row (`latency_s`, `energy_j.total`, `area_mm2.total`, `edp_js`, `tokens_per_s`,
    …), or one of the parameters, if its values are numbers: `workload.seq`."""
    goal: Goal = "minimize"


class Space(Part):
    """A space of accelerators and workloads, what is wanted of a point, and how to look for it."""

    accelerator: Annotated[str, Field(min_length=1)]
    """A preset's name, or a YAML file (relative to this file's folder)."""
    workloads: tuple[SpaceWorkload, ...] = ()
    """What every point is run with. May be left out where there is a parameter `workload`; one that stands
    here beside it lends its overrides and its weight to those that the parameter names."""
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    """By override key: `arch.array.rows`, `workload.seq`, `workload.attention.kind`. The key `workload` is
    the workload itself: names of presets, or files (relative to this file's folder)."""
    constraints: tuple[str, ...] = ()
    """Conditions over a point's keys and figures: `area_mm2.total < 20`. Points that don't meet one are on no
    front; those of which it is known beforehand are not run."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    """What points are compared by; the first one decides which point is called the best."""
    method: Method = "grid"
    """`grid`: all points. `random`, `sobol` (a low-discrepancy sequence): `budget` points spread over the
    space. `nsga2`, `tpe`: a search for `budget` points that learns from those it has seen (Optuna)."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """How many points, for every method but `grid`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of everything random."""
    fidelity: Fidelity = "event"
    """`event`: simulated. `analytic`: closed forms, a lower bound. `ladder`: analytic everywhere, and `event`
    wherever a point could be on the front."""

    @model_validator(mode="after")
    def _has_a_budget(self) -> Space:
        if self.method == "grid" and self.budget is not None:
            raise ValueError("`budget` means nothing to the method 'grid', which takes all points")
        if self.method != "grid" and self.budget is None:
            raise ValueError(f"the method {self.method!r} needs a `budget`: how many points to look at")
        if self.method in ("nsga2", "tpe") and self.fidelity == "ladder":
            raise ValueError(
                "the fidelity 'ladder' needs to know all points beforehand: use grid, random or sobol, or "
                "the fidelity 'event'"
            )
        return self


def space_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a space file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Space.model_json_schema()}
