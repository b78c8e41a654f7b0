"""The table of docs/energy.md: what every shipped accelerator takes for BERT-base.

python -m docs.energy_table
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from docs.markdown import table
from docs.simulated import simulated
from tilewright.arch.load import load_accelerator, preset_names
from tilewright.sim.result import Result
from tilewright.sim.summary import summary

BETWEEN = ("links", "routers")
STATIC = ("leakage", "clock", "dram_background")
OWN = ("array", "registers", "vector", "network", "dram", "control", "total", *STATIC, *BETWEEN)


def main() -> None:
    """Print the table: a row per preset."""
    heads = (
        "preset", "node nm", "latency ms", "energy mJ", "W", "pJ/MAC", "array", "registers", "vector",
        "buffers", "network", "DRAM", "static", "area mm²", "buffers' area",
    )  # fmt: skip
    rows = [_row(name) for name in preset_names()]
    sys.stdout.write(table(heads, rows, right=range(1, len(heads))))


def _row(name: str) -> tuple[str, ...]:
    accelerator, result = load_accelerator(name), simulated(name, "bert-base")
    figures = summary(result)
    return (
        f"`{name}`",
        f"{accelerator.technology.node_nm:g}",
        f"{1e3 * result.latency_s:,.4g}",
        f"{1e3 * figures.energy_j:,.4g}",
        f"{figures.average_power_w:,.3g}",
        f"{figures.energy_per_mac_pj:,.3g}",
        *(f"{share:.0%}" for share in _shares(result)),
        f"{figures.area_mm2:,.4g}",
        f"{_buffers(result.area_mm2) / figures.area_mm2:.0%}",
    )


def _shares(result: Result) -> list[float]:
    energy = result.energy_j
    parts = [energy["array"], energy["registers"], energy["vector"], _buffers(energy)]
    parts.append(energy["network"] + sum(energy.get(name, 0.0) for name in BETWEEN))
    parts += [energy["dram"], sum(energy[name] for name in STATIC)]
    return [part / energy["total"] for part in parts]


def _buffers(breakdown: Mapping[str, float]) -> float:
    """The components that a description names itself."""
    return sum(amount for name, amount in breakdown.items() if name not in OWN)


if __name__ == "__main__":
    main()
