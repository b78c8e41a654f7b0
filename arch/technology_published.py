"""What was published of real designs against what the tables say of them (`technology/published.yaml`).

`python -m tilewright.arch.technology_published` prints the table in docs/energy.md.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from tilewright.arch.area import area_mm2
from tilewright.arch.energy import peak_power_w
from tilewright.arch.load import load_accelerator
from tilewright.arch.technology import Technology, shipped_figures
from tilewright.description.yaml_text import parse

TOLERANCE = 0.30
"""Error beyond which a row must say why."""
_PER_UNIT = {"area_um2": 1e6, "area_mm2": 1.0, "power_mw": 1e3, "power_w": 1.0, "energy_pj": 1.0}
"""What the model's mm2, W and pJ are multiplied by."""


@dataclass(frozen=True)
class Row:
    """One published figure and the modelled one."""

    system: str
    quantity: str
    """`area_um2`, `area_mm2`, `power_mw`, `power_w` or `energy_pj`."""
    published: float
    modelled: float
    evidence: str
    source: str
    model: str
    """How it was modelled."""
    why: str
    """Why they differ, where it is by more than 30 %."""

    @property
    def error(self) -> float:
        """Modelled over published, less one."""
        return self.modelled / self.published - 1.0


@lru_cache(maxsize=1)
def published() -> tuple[Row, ...]:
    """Return every row, modelled with the shipped tables.

    A source that begins with `The same` goes on with the one above it.
    """
    text = (files("tilewright.arch") / "technology" / "published.yaml").read_text(encoding="utf-8")
    data: Any = parse("rows:\n" + textwrap.indent(text, "  "), "published.yaml").data
    rows: list[Row] = []
    above = ""
    for entry in data["rows"]:
        source = " ".join(entry["source"].split())
        if source.startswith("The same"):
            source = above + source.removeprefix("The same")
        else:
            above = source
        rows.append(_row(entry, source))
    return tuple(rows)


def _row(entry: Mapping[str, Any], source: str) -> Row:
    quantity = entry["quantity"]
    value = _of_accelerator(entry) if "accelerator" in entry else _of_parts(entry)
    return Row(
        system=entry["system"],
        quantity=quantity,
        published=float(entry["published"]),
        modelled=value * _PER_UNIT[quantity],
        evidence=entry["evidence"],
        source=source,
        model=" ".join(entry["model"].split()),
        why=" ".join(entry.get("why", "").split()),
    )


def _of_accelerator(entry: Mapping[str, Any]) -> float:
    accelerator = load_accelerator(entry["accelerator"], entry.get("overrides", ()))
    area = entry["quantity"].startswith("area")
    parts = area_mm2(accelerator) if area else peak_power_w(accelerator)
    return sum(parts[name] for name in entry.get("components", parts))


def _of_parts(entry: Mapping[str, Any]) -> float:
    technology = Technology(float(entry["node_nm"]), MappingProxyType(dict(shipped_figures())))
    parts: Sequence[Mapping[str, Any]] = entry["parts"]
    if entry["quantity"].startswith("area"):
        return sum(float(part["count"]) * _area_mm2(part, technology) for part in parts)
    picojoules: float = sum(
        float(part.get("per_cycle", part["count"])) * _access_pj(part, technology) for part in parts
    )
    if entry["quantity"] == "energy_pj":
        return picojoules
    dynamic = picojoules * 1e-6 * float(entry["clock_mhz"])
    return dynamic + sum(float(part["count"]) * _static_w(part, technology) for part in parts)


def _area_mm2(part: Mapping[str, Any], technology: Technology) -> float:
    if "sram" in part:
        return technology.sram(**part["sram"]).area_mm2
    if part["of"].startswith("dram."):
        return 0.0
    per_bit = {"register": "register.area_um2_per_bit", "comparator": "comparator.area_um2_per_bit"}
    path = per_bit.get(part["of"], f"arithmetic.{part['of']}.area_um2")
    return technology.value(path) * technology.value("logic.area_factor") * 1e-6


def _access_pj(part: Mapping[str, Any], technology: Technology) -> float:
    """Energy of one operation of a part in one cycle; of a memory, in one nanosecond."""
    if "sram" in part:
        return technology.sram(**part["sram"]).read_pj
    name = part["of"]
    if name.startswith("dram."):
        activate = technology.value(f"{name}.activate_pj") / technology.value(f"{name}.row_bytes")
        return float(part["gb_per_s"]) * (8 * technology.value(f"{name}.read_pj_per_bit") + activate)
    per_bit = {"register": "register.energy_pj_per_bit", "comparator": "comparator.energy_pj_per_bit"}
    return technology.value(per_bit.get(name, f"arithmetic.{name}.energy_pj"))


def _static_w(part: Mapping[str, Any], technology: Technology) -> float:
    if "sram" in part:
        return technology.sram(**part["sram"]).leak_mw * 1e-3
    return _area_mm2(part, technology) * 1e6 * technology.value("logic.leakage_nw_per_um2") * 1e-9


def render(rows: Sequence[Row]) -> str:
    """The rows as a plain-text table, and under it how each was modelled and why it is off."""
    head = f"{'':4}{'design':<28}{'quantity':<10}{'published':>11}{'modelled':>11}{'error':>8}  evidence"
    lines = [head]
    for number, row in enumerate(rows, 1):
        lines.append(
            f"{number:>2}  {row.system:<28}{row.quantity:<10}{row.published:>11.4g}{row.modelled:>11.4g}"
            f"{row.error:>+8.0%}  {row.evidence}"
        )
    for number, row in enumerate(rows, 1):
        lines += ["", *_note(number, row)]
    return "\n".join(lines)


def _note(number: int, row: Row) -> list[str]:
    texts = [f"Published: {row.source}.", f"Modelled: {row.model}."]
    if row.why:
        texts.append(f"Why it is off: {row.why}.")
    lines = [f"{number:>2}  {row.system}, {row.quantity}"]
    for text in texts:
        lines += textwrap.wrap(text, 104, initial_indent="    ", subsequent_indent="      ")
    return lines


if __name__ == "__main__":
    print(render(published()))
