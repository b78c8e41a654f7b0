"""What compression is worth on an accelerator that supports it, or does not: by simulation."""

from __future__ import annotations

import pytest

from tilewright.api import load_accelerator, simulate
from tilewright.sim.result import Result
from tilewright.workloads.load import load_workload

SIZES = ["d=64", "heads=2", "ffn=128", "seq=16"]
MATRICES = 4 * 64 * 64 + 2 * 64 * 128


def run(
    accelerator: str, *techniques: str, workload: str = "encoder_block", sizes: list[str] = SIZES
) -> Result:
    """A small model with these techniques, simulated."""
    compression = f"compression=[{', '.join(techniques)}]"
    return simulate(load_accelerator(accelerator), load_workload(workload, [*sizes, compression]))


def reads(result: Result) -> int:
    return result.traffic_bytes["dram"].read


@pytest.mark.parametrize(("element", "bits"), [("int8", 8), ("fp8", 8), ("int4", 4), ("fp32", 32)])
def test_narrow_weights_shrink_bytes_by_their_width(element: str, bits: int) -> None:
    """On a bfloat16 machine DRAM reads change by the weights' bits, less 16 for each column's scale; the
    energy of the DRAM goes with them."""
    plain = run("many-core-server")
    narrow = run("many-core-server", f"{{kind: quantise, weights: {element}}}")
    columns = 4 * 64 + 128 + 64
    assert reads(plain) - reads(narrow) == MATRICES * (16 - bits) // 8 - 2 * columns
    assert (narrow.energy_j["dram"] < plain.energy_j["dram"]) == (bits < 16)
    assert (narrow.macs, narrow.useful_macs) == (plain.macs, plain.useful_macs)


def test_an_array_multiplies_in_its_own_type() -> None:
    """Where memory is free, 8-bit elements take the array as many cycles as its own, and as much energy."""
    techniques = "{kind: quantise, weights: int8, activations: int8}"
    plain, narrow = run("bare-array"), run("bare-array", techniques)
    assert narrow.units["array"]["busy"] == plain.units["array"]["busy"]
    assert narrow.energy_j["array"] == plain.energy_j["array"]


def test_converting_weights_costs_cycles_where_memory_is_free() -> None:
    """Weights narrower than the activations are converted on the vector unit; nothing is free."""
    assert run("bare-array", "{kind: quantise, weights: int4}").cycles > run("bare-array").cycles


def test_integer_softmax_pays_where_exponentials_are_dear() -> None:
    """It is slower on a vector unit whose exponential takes 1 cycle, and faster on one where it takes 40."""
    sizes = ["heads=2", "d=64", "seq=64"]
    cycles = {}
    for exp in (1, 40):
        machine = load_accelerator("edge-npu-large", [f"vector.cycles.exp={exp}"])
        plain, integer = (
            simulate(machine, load_workload("encoder_block", [*sizes, f"compression=[{each}]"])).cycles
            for each in ("", "{kind: quantise, softmax: integer}")
        )
        cycles[exp] = integer - plain
    assert cycles[1] > 0 > cycles[40]


@pytest.mark.parametrize("pattern", ["pattern: n_m", "pattern: block, block: 32", "pattern: unstructured"])
def test_zeros_are_multiplied_by_an_array_that_does_not_skip_them(pattern: str) -> None:
    """Half of the weights being zero, an array without support does as many MACs in as many cycles; useful
    are half of the dense layers', and memory holds less."""
    technique = f"{{kind: sparse_weights, {pattern}}}"
    plain, sparse = run("bare-array"), run("bare-array", technique)
    assert (sparse.cycles, sparse.macs) == (plain.cycles, plain.macs)
    assert plain.macs - sparse.useful_macs == 16 * MATRICES // 2
    assert reads(run("edge-npu-large", technique)) < reads(run("edge-npu-large"))


def test_an_index_can_outweigh_the_zeros() -> None:
    """At half density a 16-bit index per 8-bit weight makes compressed rows larger than the dense ones."""
    technique = "{kind: sparse_weights, pattern: unstructured, index: csr}"
    assert reads(run("edge-npu-large", technique)) > reads(run("edge-npu-large"))


def test_sparse_weights_save_cycles_where_memory_is_the_limit() -> None:
    """The same array waits less for fewer bytes."""
    slow = ["dram={kind: flat, bytes_per_cycle: 1}"]
    machine = load_accelerator("edge-npu-large", slow)
    graphs = [
        load_workload("encoder_block", [*SIZES, f"compression=[{each}]"])
        for each in ("", "{kind: sparse_weights, pattern: n_m}")
    ]
    plain, sparse = (simulate(machine, graph).cycles for graph in graphs)
    assert plain - sparse > MATRICES // 8


def test_shared_weights_are_read_once_where_they_stay() -> None:
    """Layers on one set of weights that fits a buffer read it once; those of their own, each its own."""
    model = ["layers=6", "d=64", "heads=2", "ffn=128", "seq=16", "vocab=50"]
    own = run("edge-npu-large", workload="bert-base", sizes=model)
    shared = run("edge-npu-large", "{kind: share_layers}", workload="bert-base", sizes=model)
    assert reads(own) - reads(shared) >= 5 * MATRICES


def test_chunks_need_less_room() -> None:
    """A hidden layer a quarter as long is live at a time; the MACs stay."""
    sizes = ["d=64", "heads=2", "ffn=1024", "seq=64"]
    plain = run("edge-npu-large", sizes=sizes)
    chunked = run("edge-npu-large", "{kind: chunked_ffn, chunk: 16}", sizes=sizes)
    assert chunked.macs == plain.macs
    assert chunked.peak_memory_bytes < plain.peak_memory_bytes
