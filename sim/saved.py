"""A saved result (`tilewright run … --format json`) read back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TypeVar, cast, get_args, get_type_hints

from tilewright.description.errors import InputError, Problem
from tilewright.sim.result import Fidelity, OperatorRow, Result, Traffic

_T = TypeVar("_T")


def load_result(text: str, source: str) -> Result:
    """The `Result` whose `to_dict()` was saved as JSON in `text`; the trace and the outputs are not saved.

    Raises `InputError`, naming `source`, if `text` is not such an object.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            Problem(f"not JSON: {error.msg}", source=source, line=error.lineno, column=error.colno)
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets in brackets
        raise InputError(Problem(f"not a saved result; write one with {_HOW}", source=source)) from error
    if not isinstance(data, dict) or "operators" not in data:
        raise InputError(Problem(f"not a saved result; write one with {_HOW}", source=source))
    try:
        return _result(data)
    except KeyError as error:
        raise InputError(
            Problem(
                f"the key is missing; save the result again with {_HOW}", source=source, key=error.args[0]
            )
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            Problem(f"not a saved result ({error}); write one with {_HOW}", source=source)
        ) from error


_HOW = "`tilewright run ACCELERATOR WORKLOAD --format json`"


def _result(data: Mapping[str, object]) -> Result:
    peak = data["peak_dram_bytes_per_cycle"]
    return Result(
        accelerator=_typed(data, "accelerator", str),
        workload=_typed(data, "workload", str),
        fidelity=_fidelity(data),
        cycles=_typed(data, "cycles", int),
        clock_mhz=_clock_mhz(data),
        parameters=_typed(data, "parameters", int),
        macs=_typed(data, "macs", int),
        useful_macs=_typed(data, "useful_macs", int),
        peak_memory_bytes=_typed(data, "peak_memory_bytes", int),
        peak_macs_per_cycle=_typed(data, "peak_macs_per_cycle", int),
        units={name: _cycles(states) for name, states in _mapping(data["units"]).items()},
        stalls=_cycles(data["stalls"]),
        traffic_bytes={name: _traffic(moved) for name, moved in _mapping(data["traffic_bytes"]).items()},
        operators=tuple(_row(row) for row in _typed(data, "operators", list)),
        provenance=_mapping(data["provenance"]),
        peak_dram_bytes_per_cycle=None if peak is None else _number(peak),
        energy_j=_breakdown(data["energy_j"]),
        area_mm2=_breakdown(data["area_mm2"]),
        area_fpga=_cycles(data["area_fpga"]),
        sparse_attention={n: _breakdown(found) for n, found in _mapping(data["sparse_attention"]).items()},
        sources=tuple(_mapping(source) for source in _typed(data, "sources", list)),
    )


def _typed(data: Mapping[str, object], key: str, kind: type[_T]) -> _T:
    value = data[key]
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise TypeError(f"{key} is {value!r}")
    return value


def _fidelity(data: Mapping[str, object]) -> Fidelity:
    value = _typed(data, "fidelity", str)
    if value not in get_args(Fidelity):
        raise ValueError(f"fidelity is {value!r}")
    return cast(Fidelity, value)


def _clock_mhz(data: Mapping[str, object]) -> float:
    value = _number(data["clock_mhz"])
    if value <= 0:
        raise ValueError(f"clock_mhz is {value!r}")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return value


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _cycles(value: object) -> dict[str, int]:
    states = _mapping(value)
    return {name: _typed(states, name, int) for name in states}


def _traffic(value: object) -> Traffic:
    moved = _mapping(value)
    return Traffic(_typed(moved, "read", int), _typed(moved, "write", int))


def _breakdown(value: object) -> dict[str, float]:
    return {name: _number(amount) for name, amount in _mapping(value).items()}


_ROW_TYPES = {name: kind for name, kind in get_type_hints(OperatorRow).items() if name != "energy_pj"}
_make_row = cast("Callable[..., OperatorRow]", OperatorRow)


def _row(value: object) -> OperatorRow:
    row = _mapping(value)
    fields = {name: _typed(row, name, kind) for name, kind in _ROW_TYPES.items()}
    return _make_row(**fields, energy_pj=_breakdown(row["energy_pj"]))
