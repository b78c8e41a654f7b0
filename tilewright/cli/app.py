"""The typer application: what is common to all commands, and the list of them.

Nothing heavy is imported here, nor at the top of any module of `tilewright.cli`: `--help` must be quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tilewright.cli import ExitCode
from tilewright.cli.dashboard import dashboard_command
from tilewright.cli.describe import list_command, schema_command, show_command
from tilewright.cli.report import report_command
from tilewright.cli.rtl import rtl_command
from tilewright.cli.run import run_command
from tilewright.cli.sweep import export_command, sweep_command
from tilewright.cli.texts import examples
from tilewright.cli.validate import validate_command


def _exit_codes() -> str:
    """The exit codes as a paragraph that `--help` leaves as it is."""
    return "\b\nExit codes:\n" + "\n".join(f"  {code.value:<4} {code.__doc__}" for code in ExitCode)


app = typer.Typer(
    name="tilewright",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "tilewright run gemmini-default bert-base workload.seq=512",
        "tilewright list accelerators",
    )
    + "\n\n"
    + _exit_codes(),
)


def _version(asked: bool) -> None:
    if asked:
        from tilewright import __version__

        typer.echo(f"tilewright {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Simulate transformers on accelerators that you describe in YAML."""


app.command(
    "run",
    epilog=examples(
        "tilewright run gemmini-default bert-base workload.seq=512 --report bert.html",
        "tilewright run my-chip.yaml config.json arch.array.rows=32 --format json",
    ),
)(run_command)
app.command(
    "list",
    epilog=examples("tilewright list accelerators", "tilewright list workloads --format json"),
)(list_command)
app.command(
    "show",
    epilog=examples(
        "tilewright show gemmini-default arch.array.rows=32",
        "tilewright show tpu-v1 --sources --format csv",
    ),
)(show_command)
app.command(
    "schema",
    epilog=examples(
        "tilewright schema accelerator > accelerator.schema.json",
        "tilewright schema workload > workload.schema.json",
    ),
)(schema_command)
app.command(
    "report",
    epilog=examples(
        "tilewright report gemmini-default bert-base -o bert.html",
        "tilewright report study/ -o study.html",
    ),
)(report_command)
app.command(
    "dashboard",
    epilog=examples("tilewright dashboard study/", "tilewright dashboard study/ --port 0"),
)(dashboard_command)
app.command(
    "sweep",
    epilog=examples(
        "tilewright sweep space.yaml -o study/",
        "tilewright sweep space.yaml -o study/ arch.array.rows=8,16,32 --jobs 2 --dry-run",
    ),
)(sweep_command)
app.command(
    "export",
    epilog=examples(
        "tilewright export study/ -o points.csv",
        "tilewright export study/ -o points.parquet",
    ),
)(export_command)
app.command(
    "rtl",
    epilog=examples(
        "tilewright rtl attention-unit-8x8 -o build/ --bench --synth ecp5",
        "tilewright rtl study@front -o build/ --synth ecp5",
    ),
)(rtl_command)
app.command(
    "validate",
    epilog=examples(
        "tilewright validate",
        "tilewright validate my-suite.yaml --format csv",
    ),
)(validate_command)
