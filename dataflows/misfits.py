"""What to say where no tile fits the buffers."""

from __future__ import annotations

from tilewright.dataflows.machine import Machine
from tilewright.dataflows.specs import ChainSpec, MatmulSpec, RowsSpec
from tilewright.description.errors import InputError


def misfit(spec: MatmulSpec | RowsSpec | ChainSpec, machine: Machine) -> InputError:
    """Names the operator, the rooms there are, and what to change."""
    if isinstance(spec, MatmulSpec):
        shape = spec.shape
        return InputError(
            f"buffers: no tile of the matmul {shape.m} x {shape.k} x {shape.n} fits two slots of each "
            f"operand in {_rooms(machine)}; make a buffer larger or the array smaller"
        )
    if isinstance(spec, RowsSpec):
        return InputError(
            f"buffers: no tile of an operator on {spec.rows} rows of {spec.cols} elements fits "
            f"{_rooms(machine)}; make a buffer larger"
        )
    shape, key = spec.first.shape, "attention" if spec.softmax else "chains"
    return InputError(
        f"mapper.{key}: no tile of {' or '.join(spec.orders)} on {shape.m} x {shape.k} x {shape.n} fits "
        f"{_rooms(machine)}; make a buffer larger, or let the mapper try `unfused` as well"
    )


def _rooms(machine: Machine) -> str:
    rooms = zip(machine.names, machine.room_bytes, strict=True)
    return ", ".join(f"{name} ({room:,} bytes)" for name, room in rooms)
