"""Technology figures: the shipped tables, a user's merged over them, and their values at a node.

Every figure that is asked for is noted with its source, so that a result can list the papers behind it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from math import exp, log
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tilewright.arch.accelerator import Accelerator, TechnologyChoice
from tilewright.arch.scaling import Quantity, check_node, factor, interpolate, log_relative, nodes, uncovered
from tilewright.arch.technology_sram import SOURCE as SRAM_SOURCE
from tilewright.arch.technology_sram import Sram, grid_nodes_nm, sram
from tilewright.arch.technology_tables import Confidence, Figure, Tables, flatten, unit_of
from tilewright.description.errors import InputError, Problem
from tilewright.description.reading import read, read_text

SRAM_UNITS = {"read_pj": "pJ", "write_pj": "pJ", "leak_mw": "mW", "area_mm2": "mm2"}
_SHIPPED = ("arithmetic", "memory")


@dataclass(frozen=True)
class SourceRow:
    """One constant as it was used: its value at the accelerator's node, and where it comes from."""

    constant: str
    """Dotted path in the technology tables."""
    value: float
    unit: str
    node_nm: float | None
    """Node of the value; None for what does not depend on the logic's node."""
    scaled_from: str
    """The nodes of the figures it was scaled from; empty where it was taken as published."""
    source: str
    confidence: Confidence

    def to_dict(self) -> dict[str, object]:
        """The row as a JSON object."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass
class Technology:
    """Figures at one node. `used` fills up with the rows of those that were asked for."""

    node_nm: float
    figures: Mapping[str, tuple[Figure, ...]]
    used: dict[str, SourceRow] = field(default_factory=dict)

    def value(self, path: str) -> float:
        """Return the figure at a dotted path, at this node, in the unit that its name ends in.

        Raises InputError if there is none, or if it can't be scaled to this node.
        """
        if path in self.used:
            return self.used[path].value
        figures = self.figures.get(path)
        if not figures:
            message = f"no figure for {path} in the technology tables; give one in a technology file"
            raise InputError(Problem(message, key="technology"))
        value, near = _at_node(path, figures, self.node_nm)
        self.used[path] = _row(path, value, near, self.node_nm)
        return value

    def has(self, path: str) -> bool:
        """Whether there is a figure at a dotted path."""
        return path in self.figures

    def sram(self, capacity_bytes: float, width_bits: float, ports: int = 1) -> Sram:
        """Return one SRAM bank at this node, the tables' correction factors applied; see
        `technology_sram`."""
        bank = sram(self.node_nm, capacity_bytes, width_bits, ports)
        energy, area = self.value("sram.energy_factor"), self.value("sram.area_factor")
        corrected = Sram(
            read_pj=bank.read_pj * energy,
            write_pj=bank.write_pj * energy,
            leak_mw=bank.leak_mw * self.value("sram.leakage_factor"),
            area_mm2=bank.area_mm2 * area,
        )
        self._note_sram(f"sram.{capacity_bytes:.0f}_bytes.{width_bits:g}_bits.{ports}_ports", corrected)
        return corrected

    def _note_sram(self, name: str, bank: Sram) -> None:
        grid = grid_nodes_nm()
        below = self.node_nm < grid[0]
        near = (grid[0],) if below else _neighbours(grid, self.node_nm)
        for column, unit in SRAM_UNITS.items():
            self.used[f"{name}.{column}"] = SourceRow(
                constant=f"{name}.{column}",
                value=float(getattr(bank, column)),
                unit=unit,
                node_nm=self.node_nm,
                scaled_from=""
                if near == (self.node_nm,)
                else f"{', '.join(f'{node:g}' for node in near)} nm",
                source=f"{SRAM_SOURCE}; {_scaling_source()}" if below else SRAM_SOURCE,
                confidence="low" if below else "medium",
            )


def technology_of(accelerator: Accelerator) -> Technology:
    """Return the figures that an accelerator is to be charged with, at its node.

    Its own (`technology.figures`) replace the shipped ones. Raises InputError for a node outside the scaling
    equations' range, or for a `technology.file` that was not read yet and can't be (relative to the current
    folder).
    """
    choice = with_technology_file(accelerator, Path()).technology
    check_node(choice.node_nm)
    figures = dict(shipped_figures())
    if choice.figures:
        figures |= dict(flatten(choice.figures))
    return Technology(choice.node_nm, MappingProxyType(figures))


def with_technology_file(accelerator: Accelerator, folder: Path) -> Accelerator:
    """Return the accelerator with its `technology.file` read into `technology.figures`.

    The file is looked for relative to `folder` (that of the accelerator's YAML file), then to the current
    folder. Afterwards `technology.file` is None: the description holds the figures themselves, so that it can
    be hashed, written out and sent elsewhere without the file. Each figure's source says which file it came
    from, and its confidence is `user`. Figures that stand in the description win over the file's.
    """
    choice = accelerator.technology
    if choice.file is None:
        return accelerator
    tables = read_technology(_find(choice.file, folder))
    data = _merge(_as_user(tables, choice.file), _dump(choice.figures) if choice.figures else {})
    figures = Tables.model_validate(data)
    new = TechnologyChoice(
        node_nm=choice.node_nm, clock_gating=choice.clock_gating, dram=choice.dram, figures=figures
    )
    return accelerator.model_copy(update={"technology": new})


def read_technology(path: Path) -> Tables:
    """Return a technology file's tables. Raises InputError with every mistake at once."""
    return read(Tables, read_text(path), str(path), (), "technology")


def technology_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a technology file, for editors."""
    schema = Tables.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@lru_cache(maxsize=1)
def shipped_figures() -> Mapping[str, tuple[Figure, ...]]:
    """Return the shipped figures by dotted path, each with its full citation."""
    figures: dict[str, tuple[Figure, ...]] = {}
    for name in _SHIPPED:
        text = (files("tilewright.arch") / "technology" / f"{name}.yaml").read_text(encoding="utf-8")
        tables = read(Tables, text, f"{name}.yaml", (), "technology")
        figures |= {path: _cited(found, tables.sources or {}) for path, found in flatten(tables)}
    return MappingProxyType(figures)


def _cited(figures: tuple[Figure, ...], sources: Mapping[str, str]) -> tuple[Figure, ...]:
    cited = (figure.model_copy(update={"source": _full(figure.source, sources)}) for figure in figures)
    return tuple(sorted(cited, key=lambda figure: figure.node_nm or 0.0))


def _full(source: str, sources: Mapping[str, str]) -> str:
    return " ".join(sources.get(source, source).split())


def _neighbours(nodes_nm: Sequence[float], node_nm: float) -> tuple[float, ...]:
    """The node itself if it is among the ascending ones, else those on both sides of it."""
    if node_nm in nodes_nm:
        return (node_nm,)
    above = bisect_left(nodes_nm, node_nm)
    return tuple(nodes_nm[max(above - 1, 0) : above + 1])


def _at_node(path: str, figures: tuple[Figure, ...], node_nm: float) -> tuple[float, tuple[Figure, ...]]:
    """A figure's value at a node, and the figures that it was made of."""
    figures = tuple(sorted(figures, key=lambda figure: figure.node_nm or 0.0))
    fixed = [figure for figure in figures if figure.node_nm in (None, node_nm)]
    if fixed:
        return fixed[0].value, (fixed[0],)
    known = [float(figure.node_nm or 0.0) for figure in figures]
    quantity = _quantity(path)
    strange = [message for node in known if quantity and (message := uncovered(node))]
    if strange:
        raise InputError(Problem(strange[0], key=path))
    below = [index for index, node in enumerate(known) if node < node_nm]
    near = figures[below[-1] if below else 0 :][: 2 if below else 1]
    if len(near) == 1:
        scale = factor(quantity, near[0].node_nm or node_nm, node_nm) if quantity else 1.0
        return near[0].value * scale, near
    return _between(quantity, near, node_nm), near


def _between(quantity: Quantity | None, near: tuple[Figure, ...], node_nm: float) -> float:
    """Between two figures, along the scaling equations' curve (the node's logarithm where there is none)."""
    ends = [float(figure.node_nm or 0.0) for figure in near]
    places = [log_relative(quantity, node) if quantity else log(node) for node in (*ends, node_nm)]
    if min(figure.value for figure in near) == 0.0:
        return max(figure.value for figure in near)
    return exp(interpolate(places[:2], [log(figure.value) for figure in near], places[2]))


def _quantity(path: str) -> Quantity | None:
    """What scales a figure, by its unit; None for what keeps its value."""
    unit = unit_of(path)
    if unit.startswith("um2"):
        return "area"
    return "energy" if unit.startswith("pJ") else None


def _row(path: str, value: float, near: tuple[Figure, ...], node_nm: float) -> SourceRow:
    ends = [figure.node_nm for figure in near if figure.node_nm is not None]
    scaled = bool(ends) and ends != [node_nm]
    source = "; ".join(dict.fromkeys(figure.source for figure in near))
    if scaled and _quantity(path):
        source = f"{source}; {_scaling_source()}"
    order: tuple[Confidence, ...] = ("user", "low", "medium", "high")
    confidence = min((figure.confidence for figure in near), key=order.index)
    return SourceRow(
        constant=path,
        value=value,
        unit=unit_of(path),
        node_nm=node_nm if ends else None,
        scaled_from=f"{', '.join(f'{node:g}' for node in ends)} nm" if scaled else "",
        source=source,
        confidence=confidence,
    )


def _scaling_source() -> str:
    return f"scaled by {nodes().source.partition(':')[0]}"


def _find(name: str, folder: Path) -> Path:
    candidates = [folder / name, Path(name)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        places = " or ".join(dict.fromkeys(str(path) for path in candidates))
        message = f"no such technology file: {places} (looked for beside the accelerator's file, then here)"
        raise InputError(Problem(message, key="technology.file"))
    return found


def _as_user(tables: Tables, name: str) -> dict[str, Any]:
    """The tables' data, every figure marked as the user's and with its full source."""
    sources = tables.sources or {}
    data = _dump(tables)
    data.pop("sources", None)
    for path, figures in flatten(tables):
        *above, last = path.split(".")
        place = data
        for part in above:
            place = place[part]
        place[last] = [
            {
                **_dump(figure),
                "source": f"{name}: {_full(figure.source, sources)}",
                "confidence": "user",
            }
            for figure in figures
        ]
    return data


def _dump(table: Tables | Figure) -> dict[str, Any]:
    return table.model_dump(mode="json", by_alias=True)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the parts of `above` put over it."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
