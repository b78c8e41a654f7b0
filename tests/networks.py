"""What the tests of the network between cores share: machines with one, small workloads, runs."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.sim.result import Fidelity, Result
from tilewright.workloads.graph import OperatorGraph

RING = {"topology": "ring", "link_bytes_per_cycle": 2.0, "hop_cycles": 3}
TOPOLOGIES = st.sampled_from(["mesh", "ring"])


def description(network: dict[str, Any] | None, **changes: object) -> dict[str, Any]:
    """Four cores with little memory around one flat DRAM."""
    return {
        "name": "four",
        "clock_mhz": 1000,
        "cores": 4,
        "network": network,
        "array": {"rows": 4, "cols": 4, "dataflow": "weight_stationary"},
        "vector": {"lanes": 4},
        "buffers": {
            "operands": {"capacity_bytes": 4096, "holds": ["input", "weight"], "width_bytes": 16},
            "sums": {"capacity_bytes": 4096, "holds": ["output"], "width_bytes": 16},
        },
        "dram": {"kind": "flat", "bytes_per_cycle": 32.0, "latency_cycles": 10},
        **changes,
    }


def machine(network: dict[str, Any] | None = None, **changes: object) -> Accelerator:
    """The accelerator of `description`."""
    return Accelerator.model_validate(description(network, **changes))


def run(described: dict[str, Any], workload: OperatorGraph, fidelity: Fidelity = "event") -> Result:
    return tw.simulate(Accelerator.model_validate(described), workload, fidelity)


networks = st.fixed_dictionaries(
    {
        "topology": TOPOLOGIES,
        "link_bytes_per_cycle": st.sampled_from([0.5, 3.0, 16.0]),
        "hop_cycles": st.sampled_from([0, 5]),
        "memory_cores": st.sampled_from([1, 2]),
    }
)


@st.composite
def workloads(draw: st.DrawFn) -> OperatorGraph:
    """GEMMs and small blocks."""
    if draw(st.booleans()):
        sizes = [f"{name}={draw(st.integers(1, 40))}" for name in ("m", "k", "n")]
        return tw.load_workload("gemm", [*sizes, f"batch={draw(st.integers(1, 3))}"])
    heads = draw(st.integers(1, 3))
    sizes = [f"d={8 * heads}", f"heads={heads}", "ffn=24", f"seq={draw(st.integers(1, 12))}"]
    return tw.load_workload("encoder_block", sizes)
