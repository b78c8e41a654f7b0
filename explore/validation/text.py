"""A validation as text: a plain table for terminals, Markdown for documents."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from tilewright.description.text_table import aligned
from tilewright.explore.validation.validation import Outcome, SuiteOutcome, Validation

EXPLAINED = 0.30
"""Error beyond which the plain table shows a case's explanation as well."""
_LONG_METRIC = 48
"""Characters of a metric that the plain table shows."""
_HEADS = ("case", "metric", "measured", "predicted", "error", "evidence")
_RIGHT = (False, False, True, True, True, False)


def plain_text(validation: Validation) -> str:
    """A table per suite with the explanations of what is far off, and a line per suite at the end."""
    parts = [_plain_suite(suite) for suite in validation.suites]
    heads = ("suite", "cases", "evidence", "MAPE", "largest error", "tolerance", "verdict")
    right = (False, True, False, True, True, True, False)
    rows = [_summary(suite) for suite in validation.suites]
    return "".join((*parts, aligned((heads, *rows), right)))


def markdown(validation: Validation) -> str:
    """A table of the suites, and for each its cases, sources, models and explanations."""
    heads = ("suite", "cases", "evidence", "MAPE", "largest error", "tolerance", "verdict")
    rows = [(f"[{suite.name}](#{suite.name})", *_summary(suite)[1:]) for suite in validation.suites]
    return "\n".join((_table(heads, rows), *map(_markdown_suite, validation.suites)))


def evidence(cases: Iterable[Outcome]) -> str:
    """The kinds of evidence of some cases, in the order of their first."""
    return ", ".join(dict.fromkeys(case.evidence for case in cases if case.evidence)) or "not stated"


def _summary(suite: SuiteOutcome) -> tuple[str, ...]:
    largest = max(suite.cases, key=lambda case: abs(case.error))
    held = suite.tolerance is not None or any(case.tolerance is not None for case in suite.cases)
    verdict = "exceeded" if not suite.passed else "within" if held else "reported only"
    tolerance = "none" if suite.tolerance is None else _percent(suite.tolerance)
    return (
        suite.name, str(len(suite.cases)), evidence(suite.cases), _percent(suite.mape),
        _signed(largest.error, points=largest.points), tolerance, verdict,
    )  # fmt: skip


def _plain_suite(suite: SuiteOutcome) -> str:
    rows = [(str(number), *_short(_cells(case))) for number, case in enumerate(suite.cases, 1)]
    lines = [f"{suite.name}\n"]
    lines += [f"{line}\n" for line in textwrap.wrap(suite.title, 110)]
    lines += ["\n", aligned((("", *_HEADS), *rows), (True, *_RIGHT)), "\n"]
    width = len(str(len(suite.cases)))
    notes = [
        f"{line}\n"
        for number, case in enumerate(suite.cases, 1)
        if case.note and abs(case.error) > EXPLAINED
        for line in _hanging(f"{number:>{width}}  ", f"{case.case}: {case.note}.")
    ]
    return "".join([*lines, *notes, "\n"] if notes else lines)


def _short(cells: tuple[str, ...]) -> tuple[str, ...]:
    """With an end of the metric left out where it is a long expression."""
    case, metric, *figures = cells
    if len(metric) > _LONG_METRIC:
        metric = f"{metric[: _LONG_METRIC - 4]} ..."
    return case, metric, *figures


def _hanging(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=head, subsequent_indent=" " * len(head))


def _markdown_suite(suite: SuiteOutcome) -> str:
    sources = list(dict.fromkeys(case.source for case in suite.cases if case.source))
    several = len(sources) > 1
    heads = ("", *_HEADS, *(["source"] if several else []))
    rows = [
        (str(number), *_cells(case), *([_number_of(case, sources)] if several else []))
        for number, case in enumerate(suite.cases, 1)
    ]
    parts = [f"## {suite.name}\n"]
    if suite.title:
        parts.append(f"{suite.title}\n")
    parts.append(_table(heads, rows))
    if several:
        parts.append("Sources:\n\n" + "".join(f"{i}. {text}.\n" for i, text in enumerate(sources, 1)))
    elif sources:
        parts.append(f"Source: {sources[0]}.\n")
    notes = "".join(_notes(suite.cases))
    return "\n".join(
        [*parts, f"How cases were modelled, and why they are off:\n\n{notes}"] if notes else parts
    )


def _notes(cases: Sequence[Outcome]) -> Iterator[str]:
    for number, case in enumerate(cases, 1):
        model = f" Modelled: {case.model}." if case.model else ""
        why = f" Why it is off: {case.note}." if case.note else ""
        if model or why:
            error = _signed(case.error, points=case.points)
            yield f"- **{number}, {case.case}, {case.metric}** ({error}).{model}{why}\n"


def _number_of(case: Outcome, sources: Sequence[str]) -> str:
    return str(sources.index(case.source) + 1) if case.source else ""


def _cells(case: Outcome) -> tuple[str, ...]:
    unit = "" if not case.unit or case.metric.endswith(case.unit) else f" ({case.unit})"
    return (
        case.case, case.metric + unit, _figure(case.measured), _figure(case.predicted),
        _signed(case.error, points=case.points), case.evidence,
    )  # fmt: skip


def _figure(value: float) -> str:
    """Whole numbers in full, others to four digits."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1e4 else f"{value:.4g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _signed(fraction: float, *, points: bool = False) -> str:
    """An error: exactly none is `0`, so that a small one does not look like it."""
    return f"{100 * fraction:+.2f} {'pt' if points else '%'}" if fraction else "0"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
