"""A self-checking Verilog test bench for any component of streams: right beats, in the right cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.rtl.ports import Ports, Stream, Wire
from tilewright.rtl.streams import Cycles, Sink, Source, Words, gap_array, to_integers

VECTORS = "vectors"
"""Folder of the vectors, beside the bench."""
_SLACK_CYCLES = 1000
"""How much later than expected the bench gives up."""


@dataclass(frozen=True)
class Stimulus:
    """A run: what goes in, when, and what must come out of it."""

    sources: Mapping[str, Source]
    sinks: Mapping[str, Sink]
    expected: Mapping[str, Words]
    """By output stream."""
    compared: Mapping[str, Words]
    """By output stream: ones for the bits of each payload that matter."""
    expected_cycles: int
    """One more than the last beat of the last output is taken in; cycle 0 is the first after reset."""


def bench_files(ports: Ports, top: str, stimulus: Stimulus) -> dict[str, str]:
    """The bench `tb_TOP.v` and its vectors, by path; it is to be run in the folder that they are written to.

    It prints a line that begins with PASS or FAIL, and ends with an error after FAIL.
    """
    files = {f"tb_{top}.v": _bench(ports, top, stimulus)}
    for stream in ports.streams:
        payloads, gaps = _beats(stream, stimulus)
        files[f"{VECTORS}/{stream.name}.hex"] = _hex(to_integers(payloads), stream.width)
        files[f"{VECTORS}/{stream.name}_gaps.hex"] = _hex([int(gap) for gap in gaps], 32)
        if not stream.is_input:
            compared = to_integers(stimulus.compared[stream.name])
            files[f"{VECTORS}/{stream.name}_compared.hex"] = _hex(compared, stream.width)
    return files


def _beats(stream: Stream, stimulus: Stimulus) -> tuple[Words, Cycles]:
    if stream.is_input:
        source = stimulus.sources[stream.name]
        return source.payloads, gap_array(source.gaps, len(source.payloads))
    expected = stimulus.expected[stream.name]
    return expected, gap_array(stimulus.sinks[stream.name].gaps, len(expected))


def _hex(values: list[int], bits: int) -> str:
    """A value a line; one line at least, since `$readmemh` complains of none."""
    digits = -(-bits // 4)
    return "".join(f"{value:0{digits}x}\n" for value in values or [0])


def _bench(ports: Ports, top: str, stimulus: Stimulus) -> str:
    beats = {stream.name: len(_beats(stream, stimulus)[0]) for stream in ports.streams}
    sinks = [stream.name for stream in ports.streams if not stream.is_input]
    wires = [wire for wire in ports.wires if not wire.is_input]
    connections = [f".{name}({name})" for name in ("clk", "rst")]
    for stream in ports.streams:
        for part in ("payload", "valid", "ready"):
            connections.append(f".{stream.name}__{part}({stream.name}__{part})")
    connections += [f".{wire.name}({wire.name})" for wire in wires]
    return _BENCH.format(
        top=top,
        expected_cycles=stimulus.expected_cycles,
        limit=stimulus.expected_cycles + _SLACK_CYCLES,
        beats=sum(beats[name] for name in sinks),
        declarations="\n".join(_declared(stream) for stream in ports.streams)
        + "".join(f"\n  {_wire(wire)}" for wire in wires),
        connections=",\n    ".join(connections),
        streams="\n".join(_instance(stream, beats[stream.name]) for stream in ports.streams),
        done=" && ".join(f"{name}_done" for name in sinks),
        wrong=" + ".join(f"{name}_wrong" for name in sinks),
    )


def _wire(wire: Wire) -> str:
    return f"wire {f'[{wire.width - 1}:0] ' if wire.width > 1 else ''}{wire.name};"


def _declared(stream: Stream) -> str:
    result = "" if stream.is_input else f"\n  wire {stream.name}_done;\n  wire [31:0] {stream.name}_wrong;"
    return f"""\
  wire [{stream.width - 1}:0] {stream.name}__payload;
  wire {stream.name}__valid, {stream.name}__ready;{result}"""


def _instance(stream: Stream, beats: int) -> str:
    kind = "stream_source" if stream.is_input else "stream_sink"
    results = "" if stream.is_input else f", .done({stream.name}_done), .wrong({stream.name}_wrong)"
    compared = "" if stream.is_input else f', .COMPARED("{VECTORS}/{stream.name}_compared.hex")'
    return f"""\
  {kind} #(.WIDTH({stream.width}), .BEATS({beats}),
    .VECTORS("{VECTORS}/{stream.name}.hex"), .GAPS("{VECTORS}/{stream.name}_gaps.hex"){compared}
  ) {stream.name}_stream (.clk(clk), .rst(rst), .payload({stream.name}__payload),
    .valid({stream.name}__valid), .ready({stream.name}__ready){results});"""


_BENCH = """\
// Self-checking test bench of {top}: run it in this folder, with Icarus Verilog or Verilator (README.md).
`timescale 1ns/1ps

module tb_{top};
  localparam EXPECTED_CYCLES = {expected_cycles};
  localparam LIMIT = {limit};
  localparam EXPECTED_BEATS = {beats};

  reg clk = 0;
  reg rst = 1;
  integer resets = 0;
  integer cycle = 0;
  integer failures;
  always #5 clk = ~clk;

{declarations}

  {top} dut (
    {connections}
  );

{streams}

  // `cycle` counts from 0, the first cycle after reset
  always @(posedge clk) begin
    if (rst) begin
      resets <= resets + 1;
      if (resets == 3) rst <= 0;
    end else begin
      cycle <= cycle + 1;
      if ({done}) begin
        failures = {wrong};
        if (failures != 0) begin
          $display("FAIL: %0d of %0d beats differ", failures, EXPECTED_BEATS);
          $fatal;
        end else if (cycle != EXPECTED_CYCLES) begin
          $display("FAIL: %0d beats right, in %0d cycles instead of %0d",
            EXPECTED_BEATS, cycle, EXPECTED_CYCLES);
          $fatal;
        end else
          $display("PASS: %0d beats in %0d cycles, as expected", EXPECTED_BEATS, cycle);
        $finish;
      end else if (cycle > LIMIT) begin
        $display("FAIL: not finished after %0d cycles; %0d were expected", cycle, EXPECTED_CYCLES);
        $fatal;
      end
    end
  end
endmodule

// Offers beat n, and keeps it, from gap(n) cycles after the one before was taken.
module stream_source #(
  parameter WIDTH = 1, parameter BEATS = 1, parameter VECTORS = "", parameter GAPS = ""
) (
  input clk, input rst, output [WIDTH-1:0] payload, output valid, input ready
);
  reg [WIDTH-1:0] beats [0:(BEATS == 0 ? 0 : BEATS-1)];
  reg [31:0] gaps [0:(BEATS == 0 ? 0 : BEATS-1)];
  integer index = 0;
  integer waited = 0;
  initial begin
    $readmemh(VECTORS, beats);
    $readmemh(GAPS, gaps);
  end
  wire pending = index < BEATS;
  wire [31:0] gap = pending ? gaps[index] : 0;
  assign payload = pending ? beats[index] : {{WIDTH{{1'b0}}}};
  assign valid = !rst && pending && waited >= gap;
  always @(posedge clk)
    if (!rst && pending) begin
      if (valid && ready) begin
        index <= index + 1;
        waited <= 0;
      end else
        waited <= waited + 1;
    end
endmodule

// Is ready for beat n from gap(n) cycles after the one before was taken, and compares the bits that matter.
module stream_sink #(
  parameter WIDTH = 1, parameter BEATS = 1, parameter VECTORS = "", parameter GAPS = "",
  parameter COMPARED = ""
) (
  input clk, input rst, input [WIDTH-1:0] payload, input valid, output ready,
  output done, output reg [31:0] wrong
);
  reg [WIDTH-1:0] beats [0:(BEATS == 0 ? 0 : BEATS-1)];
  reg [WIDTH-1:0] compared [0:(BEATS == 0 ? 0 : BEATS-1)];
  reg [31:0] gaps [0:(BEATS == 0 ? 0 : BEATS-1)];
  integer index = 0;
  integer waited = 0;
  initial begin
    wrong = 0;
    $readmemh(VECTORS, beats);
    $readmemh(COMPARED, compared);
    $readmemh(GAPS, gaps);
  end
  wire pending = index < BEATS;
  wire [31:0] gap = pending ? gaps[index] : 0;
  assign done = !pending;
  assign ready = !rst && pending && waited >= gap;
  always @(posedge clk)
    if (!rst && pending) begin
      if (valid && ready) begin
        if (((payload ^ beats[index]) & compared[index]) !== 0) begin
          wrong <= wrong + 1;
          $display("%m: beat %0d is %h instead of %h", index, payload, beats[index]);
        end
        index <= index + 1;
        waited <= 0;
      end else
        waited <= waited + 1;
    end
endmodule
"""
