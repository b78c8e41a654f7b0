"""The attention unit with AXI4-Stream ports, as Vivado expects them: a Verilog wrapper around it.

A stream `q` becomes `s_axis_q_tdata`, `_tvalid`, `_tready`, the output `o` becomes `m_axis_o_…` with `tlast`
in the last column of each tile of O. `tdata` is the payload, filled up with zeros to whole bytes. Inputs have
no `tlast`: how many beats belong together follows from the command. `aresetn` is taken as synchronous.
"""

from __future__ import annotations

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.ports import Ports, Stream
from tilewright.rtl.verilog import TOP

AXI = f"{TOP}_axi"
"""Module name of the wrapper."""
BYTE = 8


def axi_wrapper(ports: Ports, parameters: UnitSizes) -> str:
    """Verilog of the wrapper; it instantiates `attention_unit`."""
    declared = ["input  wire aclk", "input  wire aresetn"]
    connected = [".clk(aclk)", ".rst(reset)"]
    for stream in ports.streams:
        declared += _declarations(stream)
        connected += _connections(stream)
    for wire in ports.wires:
        declared.append(
            f"{'input  wire' if wire.is_input else 'output wire'} {_range(wire.width)}{wire.name}"
        )
        connected.append(f".{wire.name}({wire.name})")
    output = next(stream for stream in ports.streams if not stream.is_input)
    declaration = ",\n    ".join(declared)
    connection = ",\n        ".join(connected)
    return f"""// {TOP} with AXI4-Stream ports.
`default_nettype none

module {AXI} (
    {declaration}
);
    reg reset;
    always @(posedge aclk) reset <= !aresetn;

    {TOP} unit (
        {connection}
    );

{_padding(output)}{_last(output, parameters)}endmodule

`default_nettype wire
"""


def port_name(stream: Stream) -> str:
    """What the stream's ports begin with."""
    return f"{'s' if stream.is_input else 'm'}_axis_{stream.name}"


def _bits(stream: Stream) -> int:
    """Of `tdata`: whole bytes."""
    return -(-stream.width // BYTE) * BYTE


def _range(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def _declarations(stream: Stream) -> list[str]:
    name = port_name(stream)
    there, back = ("input  wire", "output wire") if stream.is_input else ("output wire", "input  wire")
    last = [] if stream.is_input else [f"{there} {name}_tlast"]
    return [
        f"{there} {_range(_bits(stream))}{name}_tdata",
        f"{there} {name}_tvalid",
        f"{back} {name}_tready",
        *last,
    ]


def _connections(stream: Stream) -> list[str]:
    name, port = port_name(stream), stream.name
    return [
        f".{port}__payload({name}_tdata[{stream.width - 1}:0])",
        f".{port}__valid({name}_tvalid)",
        f".{port}__ready({name}_tready)",
    ]


def _padding(output: Stream) -> str:
    """Drives the bits of the output's `tdata` beyond the payload."""
    spare = _bits(output) - output.width
    if not spare:
        return ""
    return f"    assign {port_name(output)}_tdata[{_bits(output) - 1}:{output.width}] = {spare}'d0;\n\n"


def _last(output: Stream, parameters: UnitSizes) -> str:
    """Counts the columns of a tile of O."""
    name, last = port_name(output), parameters.head_dim - 1
    width = last.bit_length()
    return f"""    reg {_range(width)}column;
    assign {name}_tlast = column == {width}'d{last};
    always @(posedge aclk)
        if (reset)
            column <= {width}'d0;
        else if ({name}_tvalid && {name}_tready)
            column <= {name}_tlast ? {width}'d0 : column + {width}'d1;
"""
