"""What a user did wrong, said so that it can be mended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake in an input: what is wrong, and where if that is known."""

    message: str
    source: str = ""
    """The file (or "command line") where it stands."""
    line: int = 0
    """1-based; 0 where there is none."""
    column: int = 0
    """1-based; 0 where there is none. Without a line, the column of `excerpt` (an override)."""
    key: str = ""
    """Dotted path of the key, or empty."""
    excerpt: str = ""
    """The source line, without its newline."""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        head = ": ".join(part for part in (place, self.key, self.message) if part)
        if not self.excerpt or not self.column:
            return head
        return f"{head}\n    {self.excerpt}\n    {' ' * (self.column - 1)}^"


class InputError(ValueError):
    """Input that can't be used as it stands; the command line turns it into exit code 2.

    All the mistakes found in one reading are reported together.
    """

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(p if isinstance(p, Problem) else Problem(p) for p in problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
