"""The page that goes with a unit's Verilog."""

from __future__ import annotations

from dataclasses import asdict

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.ports import Ports, Stream
from tilewright.rtl.verilog import TOP

_BEATS = {
    "command": "a job: how many queries and keys, the scale, the mask",
    "bitmap": "16 bits: which K tiles a Q tile visits; only if the command says `use_bitmap`",
    "q": "a column of a Q tile: {rows} elements",
    "k": "a chunk of a key: {cols} elements",
    "v": "a column of a V tile: {cols} elements",
    "o": "a column of a tile of O: {rows} elements",
}


def readme(
    parameters: UnitSizes, ports: Ports, accelerator: str, heads: int, cycles: int, formula: str
) -> str:
    """Markdown: what the unit is, how to check it, how to connect it, what it costs in cycles."""
    sizes = asdict(parameters)
    return _PAGE.format(
        top=TOP,
        accelerator=accelerator,
        rows=parameters.rows,
        cols=parameters.cols,
        head_dim=parameters.head_dim,
        bits=parameters.operand_bits,
        heads=heads,
        cycles=cycles,
        parameters="\n".join(f"| `{name}` | {value} |" for name, value in sizes.items()),
        streams="\n".join(_row(stream, parameters) for stream in ports.streams),
        wires="\n".join(f"- `{wire.name}`, {_way(wire.is_input)}, {wire.width} bit" for wire in ports.wires),
        formula=formula.strip(),
    )


def _row(stream: Stream, parameters: UnitSizes) -> str:
    meaning = _BEATS.get(stream.name, "").format(rows=parameters.rows, cols=parameters.cols)
    return f"| `{stream.name}` | {_way(stream.is_input)} | {stream.width} | {meaning} |"


def _way(is_input: bool) -> str:
    return "in" if is_input else "out"


_PAGE = """\
# {top}

`O = softmax(scale · Q Kᵀ + mask) V` for one head at a time, streamed: {rows} queries by {cols} keys a
tile, head dimension {head_dim}, {bits}-bit operands. Written by
`tilewright rtl {accelerator}`; the same command writes the same bytes.

| file | what it is |
|---|---|
| `{top}.v` | the unit, synthesizable Verilog-2005 |
| `{top}.json` | ports, fields of the command, parameters, hashes of the other files: for programs |
| `tb_{top}.v`, `vectors/` | self-checking test bench, with vectors from a bit-exact model |
| `accelerator.yaml` | the accelerator that the unit is part of, for every command of tilewright |
| `lint.vlt` | what Verilator's lint is told to leave, and why |
| the rest | FPGA flows: `make ecp5`, `make ice40`, `make xilinx`, or `vivado -source vivado.tcl` |

## Check it

The bench sends {heads} heads with different masks through the unit, with pauses on every stream, and
compares every beat of O and the number of cycles, {cycles:,}. It prints `PASS`, and ends with an
error otherwise. In this folder (Verilator 5.008 or newer):

```sh
iverilog -g2012 -o tb.vvp tb_{top}.v {top}.v && vvp tb.vvp
verilator --binary --timing -Wno-fatal -Wno-lint --top-module tb_{top} tb_{top}.v {top}.v
obj_dir/Vtb_{top}
verilator --lint-only -Wall --top-module {top} lint.vlt {top}.v
```

## Connect it

`clk`, rising edge; `rst`, synchronous, active high. A stream `s` has `s__payload`, `s__valid` and
`s__ready`; a beat is taken in a cycle in which both are high, and the source keeps valid and payload
until then. Elements are two's complement, the first in the lowest bits.

| stream | | bits | beat |
|---|---|---|---|
{streams}

Beside them:

{wires}

| parameter | value |
|---|---|
{parameters}

## Cycles

{formula}
"""
