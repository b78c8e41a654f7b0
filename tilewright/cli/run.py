"""`tilewright run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli.output import csv_text, note, staged, write_stdout
from tilewright.cli.texts import (
    Fidelity,
    FidelityOption,
    Format,
    FormatOption,
    NoFastForwardOption,
    Overrides,
    SeedOption,
)
from tilewright.description.errors import InputError
from tilewright.description.prefixes import split_overrides

if TYPE_CHECKING:
    from tilewright.sim.result import Result


def run_command(
    accelerator: Annotated[
        str,
        typer.Argument(
            metavar="ACCELERATOR", help="A preset's name, a YAML file or a study's point (STUDY@BEST)."
        ),
    ],
    workload: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD",
            help="A preset's name, a YAML file, a Hugging Face config.json, an ONNX file, a SCALE-Sim CSV, "
            "or what a study's point ran (STUDY@BEST).",
        ),
    ],
    overrides: Overrides = None,
    fidelity: FidelityOption = Fidelity.EVENT,
    output_format: FormatOption = Format.TABLE,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a trace for ui.perfetto.dev (JSON).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a self-contained page of figures (HTML).")
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print the resolved descriptions as YAML; simulate nothing."),
    ] = False,
    no_fast_forward: NoFastForwardOption = False,
    seed: SeedOption = 0,
) -> None:
    """Simulate a workload on an accelerator."""
    arch_overrides, workload_overrides = split_overrides(overrides or [])
    if print_config:
        if trace or report:
            raise InputError("--print-config simulates nothing: leave out --trace and --report")
        write_stdout(_resolved(accelerator, workload, arch_overrides, workload_overrides))
        return
    with staged([trace, report]) as (trace_part, report_part):
        result = simulated(
            accelerator, workload, arch_overrides, workload_overrides,
            fidelity=fidelity, seed=seed, fast_forward=not no_fast_forward, trace=trace is not None,
        )  # fmt: skip
        _write_files(result, trace_part, report_part)
    write_stdout(_formatted(result, output_format))
    for kind, path in (("trace", trace), ("report", report)):
        if path is not None:
            note(f"{kind} written to {path}")


def simulated(
    accelerator: str,
    workload: str,
    arch_overrides: list[str],
    workload_overrides: list[str],
    *,
    fidelity: Fidelity,
    seed: int,
    fast_forward: bool,
    trace: bool,
) -> Result:
    """Load both descriptions and simulate."""
    from tilewright.api import load_accelerator, load_workload, simulate

    _check_order(accelerator, workload)
    return simulate(
        load_accelerator(accelerator, arch_overrides),
        load_workload(workload, workload_overrides),
        fidelity.value,
        seed=seed,
        fast_forward=fast_forward,
        trace=trace,
    )


def _check_order(accelerator: str, workload: str) -> None:
    """Raise `InputError` if the two names were written the wrong way round."""
    from tilewright.arch.load import preset_names as accelerators
    from tilewright.workloads.load import preset_names as workloads

    if accelerator in workloads() or workload in accelerators():
        wrong, kind = (
            (accelerator, "a workload") if accelerator in workloads() else (workload, "an accelerator")
        )
        raise InputError(f"{wrong!r} is {kind}; the order is ACCELERATOR WORKLOAD")


def _resolved(
    accelerator: str, workload: str, arch_overrides: list[str], workload_overrides: list[str]
) -> str:
    """Both resolved descriptions, as two documents of one YAML stream."""
    from tilewright.api import expand_work, load_accelerator
    from tilewright.arch import load as arch
    from tilewright.workloads import load as workloads

    accelerator_yaml = arch.to_yaml(load_accelerator(accelerator, arch_overrides))
    workload_yaml = workloads.to_yaml(workloads.describe_workload(*expand_work(workload, workload_overrides)))
    return f"# accelerator\n{accelerator_yaml.rstrip()}\n---\n# workload\n{workload_yaml.rstrip()}\n"


def _write_files(result: Result, trace: Path | None, report: Path | None) -> None:
    if trace is not None:
        from tilewright.sim.trace import write_trace

        write_trace(result, trace)
    if report is not None:
        from tilewright.explore.pages.report import write_report

        write_report(result, report)


def _formatted(result: Result, output_format: Format) -> str:
    if output_format is Format.JSON:
        return json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n"
    if output_format is Format.CSV:
        from tilewright.sim.result import flat_row

        return csv_text([flat_row(row) for row in result.operators], result.columns)
    from tilewright.sim.render import plain_text, styled_text
    from tilewright.sim.summary import summary

    return styled_text(summary(result)) if _on_terminal() else plain_text(summary(result))


def _on_terminal() -> bool:
    import sys

    return sys.stdout.isatty()
