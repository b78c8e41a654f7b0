"""The loop nest of a matmul: every tile once, whatever the tiling, and short however long it runs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.matmul import program, windows
from tilewright.dataflows.program import Loop, Program, totals
from tilewright.dataflows.specs import MatmulSpec, Operand
from tilewright.dataflows.tiling import Tiling
from tilewright.workloads.operators import MatmulShape

extents = st.integers(1, 40)


def spec(shape: MatmulShape) -> MatmulSpec:
    return MatmulSpec(
        shape,
        a=Operand(shape.batch * shape.m * shape.k, 8),
        b=Operand(shape.batch * shape.k * shape.n, 8),
        out=Operand(shape.batch * shape.m * shape.n, 8),
    )


def items(nest: Program) -> int:
    return sum(1 + items(item.body) if isinstance(item, Loop) else 1 for item in nest)


@given(data=st.data(), cores=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_every_element_is_worked_on_once(data: st.DataObject, cores: int) -> None:
    """The windows tile the index space, the program has a tick for each, and what is loaded and stored
    follows from the loop order."""
    batch, m, k, n = (data.draw(extents) for _ in range(4))
    shape = MatmulShape(min(batch, 5), m, k, n)
    tiling = Tiling(
        m=data.draw(st.integers(1, m)),
        k=data.draw(st.integers(1, k)),
        n=data.draw(st.integers(1, n)),
        order=data.draw(st.sampled_from(["mn", "nm"])),
        split=data.draw(st.sampled_from(["batch", "m", "n"])),
        outer_stays=data.draw(st.booleans()),
        inner_stays=data.draw(st.booleans()),
    )
    machine = Machine(tw.load_accelerator("teaching-4x4", [f"cores={cores}"]))

    tiles = list(windows(spec(shape), machine, tiling))
    sums = totals(program(spec(shape), machine, tiling), machine.buffers)

    def extent(part: slice) -> int:
        return int(part.stop - part.start)

    assert sums.ticks == len(tiles)
    macs = sum(extent(t.batch) * extent(t.m) * extent(t.k) * extent(t.n) for t in tiles)
    assert macs == shape.macs
    assert sums.dram_write == shape.batch * m * n
    m_tiles, k_tiles, n_tiles = -(-m // tiling.m), -(-k // tiling.k), -(-n // tiling.n)
    m_outer = tiling.order == "mn"
    outer_once = k_tiles == 1 or tiling.outer_stays
    inner_once = k_tiles == (n_tiles if m_outer else m_tiles) == 1 or tiling.inner_stays
    a_reads = 1 if (outer_once if m_outer else inner_once) else n_tiles
    b_reads = 1 if (inner_once if m_outer else outer_once) else m_tiles
    assert sums.dram_read == shape.batch * (a_reads * m * k + b_reads * k * n)


def test_a_long_loop_is_a_short_program() -> None:
    """Two thousand million products are one loop, not a list."""
    machine = Machine(tw.load_accelerator("teaching-4x4"))
    shape = MatmulShape(2**31 - 1, 50, 60, 70)

    nest = program(spec(shape), machine, Tiling(8, 8, 8, "mn", "m"))

    assert items(nest) < 60
    assert totals(nest, machine.buffers).dram_write == shape.batch * 50 * 70
