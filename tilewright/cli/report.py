"""`tilewright report`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli.output import note, staged
from tilewright.cli.run import simulated
from tilewright.cli.texts import Fidelity, FidelityOption, NoFastForwardOption, SeedOption
from tilewright.description.errors import InputError
from tilewright.description.prefixes import split_overrides

if TYPE_CHECKING:
    from tilewright.sim.result import Result

QUIET_S = 5.0
"""At least, between two lines of progress where stderr is no terminal."""


def report_command(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR | RESULT.json | ACCELERATOR WORKLOAD [OVERRIDE]",
            help="A sweep's folder, a result of `run --format json` (- for stdin), or what to simulate.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write (HTML).")],
    fidelity: FidelityOption = Fidelity.EVENT,
    no_fast_forward: NoFastForwardOption = False,
    seed: SeedOption = 0,
) -> None:
    """Write one self-contained page of figures about a sweep or a result."""
    with staged([output]) as (part,):
        assert part is not None
        if Path(what[0]).is_dir():
            _refuse_more(what, fidelity, seed, no_fast_forward)
            _write_study(Path(what[0]), part)
        else:
            _write_result(what, fidelity, seed, no_fast_forward, part)
    note(f"report written to {output}")


def _write_study(directory: Path, part: Path) -> None:
    from tilewright.explore.pages.study_report import write_study_report
    from tilewright.explore.study.opened import open_view

    with _told() as tell:
        write_study_report(open_view(directory), part, tell)


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """What is being done, on stderr: a line that passes, or, where that is no terminal, one now and then."""
    if not sys.stderr.isatty():
        yield _now_and_then()
        return
    from rich.console import Console

    with Console(stderr=True).status("reading the study") as status:
        yield status.update


def _now_and_then() -> Callable[[str], None]:
    """Says nothing of what is quick."""
    last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_S:
            last = time.monotonic()
            note(text)

    return tell


def _write_result(what: list[str], fidelity: Fidelity, seed: int, no_fast_forward: bool, part: Path) -> None:
    if len(what) == 1:
        result = _saved(what[0])
        _refuse_more(what, fidelity, seed, no_fast_forward)
    else:
        arch_overrides, workload_overrides = split_overrides(what[2:])
        result = simulated(
            what[0], what[1], arch_overrides, workload_overrides,
            fidelity=fidelity, seed=seed, fast_forward=not no_fast_forward, trace=False,
        )  # fmt: skip
    from tilewright.explore.pages.report import write_report

    write_report(result, part)


def _refuse_more(what: list[str], fidelity: Fidelity, seed: int, no_fast_forward: bool) -> None:
    """Raise `InputError` for what has no effect on results that are there."""
    more = [*what[1:]]
    more += [f"--fidelity {fidelity.value}"] if fidelity is not Fidelity.EVENT else []
    more += [f"--seed {seed}"] if seed else []
    more += ["--no-fast-forward"] if no_fast_forward else []
    if more:
        raise InputError(f"{what[0]} holds results, nothing is simulated: leave out {' '.join(more)}")


def _saved(name: str) -> Result:
    from tilewright.sim.saved import load_result

    if name == "-":
        return load_result(sys.stdin.read(), "stdin")
    if not name.endswith(".json"):
        raise InputError(
            f"{name!r} is neither a study's folder nor a saved result (.json); to simulate, name an "
            "accelerator and a workload"
        )
    from tilewright.description.files import read_text

    return load_result(read_text(name), name)
