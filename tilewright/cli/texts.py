"""Pieces of help text and the options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


def examples(first: str, second: str) -> str:
    """The two examples that end a command's help, in lines of their own."""
    return f"\b\nExamples:\n  {first}\n  {second}"


def counted(number: int, noun: str = "point") -> str:
    """`1 point`, `1,200 points`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


class Fidelity(StrEnum):
    """How a run is simulated."""

    EVENT = "event"
    ANALYTIC = "analytic"
    CYCLE = "cycle"


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDE",
        help="arch.KEY=VALUE or workload.KEY=VALUE, e.g. arch.array.rows=32 workload.seq=512.",
        show_default=False,
    ),
]
FidelityOption = Annotated[
    Fidelity,
    typer.Option(
        "--fidelity",
        help="event: SimPy, an event per tile; analytic: closed forms, a lower bound; "
        "cycle: every processing element with real data, for small cases.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
NoFastForwardOption = Annotated[
    bool,
    typer.Option(
        "--no-fast-forward", help="Simulate every repetition, also identical ones; same numbers, slower."
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print to stdout.")]
