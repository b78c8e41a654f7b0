"""What a circuit's energy, delay and area become at another technology node.

A. Stillmaker and B. Baas, Integration 58 (2017) 74-81; the coefficients are in `technology/nodes.yaml`.
Between tabulated nodes the logarithms are interpolated; outside 65 to 7 nm nothing is extrapolated.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import exp, log
from typing import Any, Literal, cast

from tilewright.description.errors import InputError, Problem
from tilewright.description.yaml_text import parse

Quantity = Literal["energy", "delay", "area"]

LARGEST_NODE_NM = 65.0
SMALLEST_NODE_NM = 7.0


@dataclass(frozen=True)
class Nodes:
    """The scaling table: nodes in ascending order, and each quantity relative to itself at some node."""

    nodes_nm: tuple[float, ...]
    relative: Mapping[Quantity, tuple[float, ...]]
    source: str


@lru_cache(maxsize=1)
def nodes() -> Nodes:
    """Return the shipped scaling table."""
    text = (files("tilewright.arch") / "technology" / "nodes.yaml").read_text(encoding="utf-8")
    data = cast("dict[str, Any]", parse(text, "nodes.yaml").data)
    rows = sorted((float(node), row) for node, row in data["nodes"].items())
    relative: dict[Quantity, tuple[float, ...]] = {
        "area": tuple(float(row["area"]) for _, row in rows),
        "energy": tuple(_polynomial(row["energy"], row["volts"]) for _, row in rows),
        "delay": tuple(_polynomial(row["delay"], row["volts"]) for _, row in rows),
    }
    return Nodes(tuple(node for node, _ in rows), relative, " ".join(str(data["source"]).split()))


def factor(quantity: Quantity, from_nm: float, to_nm: float) -> float:
    """What `quantity` at `from_nm` is multiplied by to be that at `to_nm`.

    1 for equal nodes, and factor(a, b) * factor(b, c) = factor(a, c). Raises InputError for a node outside
    65 to 7 nm, unless the two are equal.
    """
    if from_nm == to_nm:
        return 1.0
    return exp(log_relative(quantity, to_nm) - log_relative(quantity, from_nm))


def energy_factor(from_nm: float, to_nm: float) -> float:
    """`factor` for the energy of one switching event at nominal supply."""
    return factor("energy", from_nm, to_nm)


def delay_factor(from_nm: float, to_nm: float) -> float:
    """`factor` for the delay of a gate at nominal supply."""
    return factor("delay", from_nm, to_nm)


def area_factor(from_nm: float, to_nm: float) -> float:
    """`factor` for the area of a circuit."""
    return factor("area", from_nm, to_nm)


def log_relative(quantity: Quantity, node_nm: float) -> float:
    """Logarithm of a quantity at a node in relative units. Raises InputError outside 65 to 7 nm."""
    check_node(node_nm)
    table = nodes()
    values = [log(value) for value in table.relative[quantity]]
    return interpolate([log(node) for node in table.nodes_nm], values, log(node_nm))


def check_node(node_nm: float) -> None:
    """Raise InputError for a node that can't be scaled to."""
    message = uncovered(node_nm)
    if message:
        raise InputError(Problem(message, key="technology.node_nm"))


def uncovered(node_nm: float) -> str:
    """Return what is wrong with a node outside the equations' range; empty for one within it."""
    if SMALLEST_NODE_NM <= node_nm <= LARGEST_NODE_NM:
        return ""
    return (
        f"{node_nm:g} nm is outside the {LARGEST_NODE_NM:g} to {SMALLEST_NODE_NM:g} nm of the scaling "
        "equations (Stillmaker and Baas 2017), and nothing is extrapolated: choose a node within them"
    )


def interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Piecewise-linear y at `x`, exact at the ascending `xs`; at the nearest end outside them."""
    if x <= xs[0]:
        return ys[0]
    if x >= xs[-1]:
        return ys[-1]
    above = bisect_left(xs, x)
    if xs[above] == x:
        return ys[above]
    share = (x - xs[above - 1]) / (xs[above] - xs[above - 1])
    return ys[above - 1] + share * (ys[above] - ys[above - 1])


def _polynomial(coefficients: Sequence[float], volts: float) -> float:
    value = 0.0
    for coefficient in coefficients:
        value = value * volts + coefficient
    return value
