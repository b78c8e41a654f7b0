"""Markdown tables, and the command line of the modules that make them for the documents."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence


def table(heads: Sequence[str], rows: Iterable[Iterable[str]], *, right: Collection[int] = ()) -> str:
    """A Markdown table; the columns `right` (numbers) are aligned that way."""
    rule = ["---:" if column in right else "---" for column in range(len(heads))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, rule, *rows))


def print_one(tables: Mapping[str, Callable[[], str]], description: str | None) -> None:
    """Print the one that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("table", choices=tables)
    sys.stdout.write(tables[parser.parse_args().table]())
