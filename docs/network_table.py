"""The tables of docs/multi-core.md: what more cores are worth behind a network, its cost, what they share.

python -m docs.network_table speed-up | energy | shares
"""

from __future__ import annotations

from docs.markdown import print_one, table
from docs.simulated import simulated
from tilewright.sim.result import Result

CORES = (1, 2, 4, 8, 16)
WORKLOAD = ("encoder_block", ("d=1024", "heads=16", "ffn=4096", "seq=1024"))
NARROW = "mesh, 64 B/cycle"
NETWORKS = {
    "no network": "null",
    "mesh, 256 B/cycle": "{topology: mesh, link_bytes_per_cycle: 256, hop_cycles: 4, memory_cores: CORES}",
    NARROW: "{topology: mesh, link_bytes_per_cycle: 64, hop_cycles: 4, memory_cores: CORES}",
    "ring, 64 B/cycle": "{topology: ring, link_bytes_per_cycle: 64, hop_cycles: 4, memory_cores: CORES}",
    "mesh, 64 B/cycle, memory at one core": "{topology: mesh, link_bytes_per_cycle: 64, hop_cycles: 4}",
}
SHARED = {"m": "m (tokens)", "n": "n (columns of weights)", "k": "k (rows of weights)", "batch": "heads"}


def main() -> None:
    """Print one of the tables."""
    print_one({"speed-up": speed_ups, "energy": energies, "shares": shares}, __doc__)


def speed_ups() -> str:
    """A row per network: speed-ups over one core."""
    alone = on("no network", 1).cycles
    rows = [(name, *(f"{alone / on(name, cores).cycles:.2f}" for cores in CORES[1:])) for name in NETWORKS]
    heads = ("network", *(f"{cores} cores" for cores in CORES[1:]))
    return table(heads, rows, right=range(1, len(heads)))


def energies() -> str:
    """A row per network: energy and area of 16 cores, and what links and routers have of them."""
    rows = []
    for name in NETWORKS:
        result = on(name, CORES[-1])
        energy, area = result.energy_j, result.area_mm2
        joined = [part for part in ("links", "routers") if part in energy]
        rows.append(
            (
                name,
                f"{1e3 * energy['total']:.1f}",
                *(f"{1e3 * energy[part]:.2f}" if part in joined else "-" for part in ("links", "routers")),
                f"{area['total']:.1f}",
                f"{sum(area[part] for part in joined):.1f}" if joined else "-",
            )
        )
    heads = ("network", "energy mJ", "links", "routers", "area mm²", "links and routers")
    return table(heads, rows, right=range(1, len(heads)))


def shares() -> str:
    """A row per matmul: along which dimension 16 cores share it."""
    results = [on(name, CORES[-1]) for name in ("no network", NARROW)]
    rows = []
    for each in zip(*(result.operators for result in results), strict=True):
        if each[0].kind == "matmul":
            dimensions = [row.mapping.partition("cores share ")[2] or "m" for row in each]
            rows.append((each[0].name, *(SHARED[dimension] for dimension in dimensions)))
    return table(("matmul", "no network", NARROW), rows)


def on(network: str, cores: int) -> Result:
    """The encoder block on so many cores."""
    described = NETWORKS[network].replace("CORES", str(cores))
    changes = (f"cores={cores}", f"network={described}", "mapper.effort=1")
    name, model = WORKLOAD
    return simulated("many-core-server", name, machine=changes, model=model)


if __name__ == "__main__":
    main()
