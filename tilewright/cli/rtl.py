"""`tilewright rtl`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import ExitCode
from tilewright.cli.output import note, write_stdout
from tilewright.cli.rtl_builds import Build, builds
from tilewright.cli.texts import Overrides
from tilewright.description.errors import InputError
from tilewright.description.names import folder_path
from tilewright.description.prefixes import split_overrides

if TYPE_CHECKING:
    from tilewright.rtl.bench_run import VerilogSimulator
    from tilewright.rtl.deliver import Delivery
    from tilewright.rtl.fpga import Resources


def rtl_command(
    accelerator: Annotated[
        str,
        typer.Argument(
            metavar="ACCELERATOR",
            help="A preset's name, a YAML file, a study's point (STUDY@BEST), or all units of STUDY@front.",
        ),
    ],
    overrides: Overrides = None,
    directory: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            parser=folder_path,
            help="Folder to write. A unit written there before is replaced, but not if files were added or "
            "changed.",
        ),
    ] = ...,  # type: ignore[assignment]  # required
    synth: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Then synthesise, place, route and pack: ecp5, ice40 or xilinx, or a device. What a study's "
            "unit takes is kept in the study.",
        ),
    ] = None,
    bench: Annotated[
        bool,
        typer.Option("--bench", help="Then run the test bench in Icarus Verilog or Verilator."),
    ] = False,
    vcd: Annotated[
        bool, typer.Option("--vcd", help="Add a waveform of the test bench's run (slow for large units).")
    ] = False,
) -> None:
    """Write the Verilog of an accelerator's attention unit, with a test bench and scripts for FPGAs."""
    arch, workload = split_overrides(overrides or [])
    if workload:
        raise InputError(f"override {workload[0]!r} does not fit: Verilog depends on the accelerator alone")
    wanted = builds(accelerator, arch, directory, synth)
    simulator = _checked(bench, synth)  # before anything is written
    failed = False
    for build in wanted:
        try:
            failed |= not _built(build, synth, simulator, vcd=vcd)
        except InputError as error:
            if build.alone:
                raise
            failed = True
            note(f"error: {build.title}: {error}")
    if failed:
        raise typer.Exit(ExitCode.FAILURES)


def _built(build: Build, synth: str | None, simulator: VerilogSimulator | None, *, vcd: bool) -> bool:
    """Write a unit, and do what else is asked for; whether the test bench passed."""
    from tilewright.api import generate_verilog

    delivery = generate_verilog(build.accelerator, build.directory, vcd=vcd)
    write_stdout(f"{build.title}\n" * (not build.alone) + _summary(delivery))
    if simulator is not None and not _run_bench(delivery, simulator):
        return False
    if synth is not None:
        _synthesise(build, delivery, synth)
    return True


def _checked(bench: bool, synth: str | None) -> VerilogSimulator | None:
    """The simulator for the test bench, if it is to be run. InputError if a tool is missing."""
    if synth is not None:
        from tilewright.rtl.fpga import require_tools
        from tilewright.rtl.fpga_targets import target_of

        require_tools(target_of(synth))
    if not bench:
        return None
    from tilewright.rtl.bench_run import find_simulator

    return find_simulator()


def _run_bench(delivery: Delivery, simulator: VerilogSimulator) -> bool:
    from tilewright.rtl.bench_run import run_bench

    done = run_bench(delivery.directory, simulator)
    write_stdout(f"{simulator.title}: {done.said}\n")
    return done.passed


def _summary(delivery: Delivery) -> str:
    sizes = delivery.parameters
    return (
        f"{delivery.directory}: {len(delivery.files)} files; README.md says what they are\n"
        f"unit: {sizes.rows} x {sizes.cols} PEs twice, head dimension {sizes.head_dim}, "
        f"{sizes.operand_bits}-bit operands\n"
        f"test bench: {delivery.heads} heads in {delivery.bench_cycles:,} cycles\n"
    )


def _synthesise(build: Build, delivery: Delivery, target: str) -> None:
    from tilewright.rtl.fpga import DoesNotFitError, ToolError, synthesise

    try:
        resources = synthesise(delivery.directory, target, _progress)
    except DoesNotFitError as error:
        _end_progress()
        _keep(build, error.resources, str(error))
        raise
    except ToolError as error:
        raise InputError(f"{target}: {error}; the logs are in {delivery.directory}") from error
    finally:
        _end_progress()
    write_stdout("".join(f"{line}\n" for line in resources.lines()))
    _keep(build, resources)


def _keep(build: Build, resources: Resources, refused: str = "") -> None:
    """Of a study's point, what was measured."""
    if build.study is None:
        return
    from tilewright.explore.study.fpga import keep_fpga

    keep_fpga(build.study, resources, build.command, refused)
    note(f"kept in {build.study}, for all its points that have this unit")


def _progress(text: str) -> None:
    """A line on stderr; on a terminal, the same line again and again."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        note(text)


def _end_progress() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
