"""Keeps the documents true: rewrites what is marked as a command's output, a file's contents or a table.

    python docs/regenerate.py [--check] [FILE.md ...]

A fenced block is kept up to date if the line before it is one of

    <!-- output of: tilewright show teaching-4x4 -->
    <!-- contents of: examples/my_accelerator.yaml -->

and a stretch of Markdown, such as the tables of docs/reference.py, if it stands between

    <!-- table of: python -m docs.reference dram-standards -->
    <!-- end of table -->

The command is `tilewright` or `python` and its arguments, without a shell; stdout and stderr are taken
together, without lines of progress. It runs in a scratch folder that holds a link to `examples/` and an
empty `demo/`, so that the files it writes do not land in the repository; modules of `docs` run in this very
process, where tables share what they simulate (`docs.simulated`). Without files, README.md,
CONTRIBUTING.md, docs/*.md and examples/*.md are worked on. `--check` writes nothing: it prints the difference
and exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BLOCK = re.compile(
    r"^<!-- (?P<what>output|contents) of: (?P<subject>[^\n]+) -->\n(?P<fence>```\w*\n)(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
TABLE = re.compile(
    r"^<!-- table of: (?P<command>[^\n]+) -->\n.*?^<!-- end of table -->$", re.MULTILINE | re.DOTALL
)
PROGRESS = re.compile(r"[\d,]+ of [\d,]+ points(, [\d,]+ failed)?")
"""Lines of a sweep's progress: how many there are depends on how fast the machine is."""


def documents() -> list[Path]:
    """The documents that may hold marked blocks."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return found + sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "examples").glob("*.md"))


def environment() -> dict[str, str]:
    """This checkout first, both streams in the order of their writing, and nobody's terminal settings."""
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR"}}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def output(command: str) -> str:
    """What `command` prints; `tilewright`'s exit codes 1 and 2 are fit to be shown as well."""
    program, *arguments = shlex.split(command)
    if program == "python" and arguments[0] == "-m" and arguments[1].startswith("docs."):
        return _printed(*arguments[1:])
    start = {"tilewright": [sys.executable, "-m", "tilewright"], "python": [sys.executable]}
    if program not in start:
        raise SystemExit(f"can't run {command!r}: it must start with {' or '.join(start)}")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "examples").symlink_to(ROOT / "examples")
        (Path(scratch) / "demo").mkdir()
        done = subprocess.run(
            [*start[program], *arguments],
            cwd=scratch,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode not in ((0, 1, 2) if program == "tilewright" else (0,)):
        raise SystemExit(f"{command!r} ended with exit code {done.returncode}:\n{done.stdout}")
    lines = (line.rstrip() for line in done.stdout.splitlines())
    return "".join(f"{line}\n" for line in lines if not PROGRESS.fullmatch(line))


def _printed(module: str, *arguments: str) -> str:
    """What the `main` of a module prints."""
    printed, before = io.StringIO(), sys.argv
    sys.argv = [module, *arguments]
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            importlib.import_module(module).main()
    finally:
        sys.argv = before
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


def marked(text: str) -> Iterator[tuple[str, str]]:
    """Every marked block and table: its first line's subject, and the whole of it."""
    for kind, subject in ((BLOCK, "subject"), (TABLE, "command")):
        for match in kind.finditer(text):
            yield match[subject], match[0]


def renewed(text: str) -> str:
    """`text` with every marked block and table as it should be."""

    def block(match: re.Match[str]) -> str:
        subject = match["subject"]
        body = output(subject) if match["what"] == "output" else (ROOT / subject).read_text()
        return f"<!-- {match['what']} of: {subject} -->\n{match['fence']}{body}```"

    def table(match: re.Match[str]) -> str:
        return f"<!-- table of: {match['command']} -->\n\n{output(match['command'])}\n<!-- end of table -->"

    return TABLE.sub(table, BLOCK.sub(block, text))


def difference(old: str, new: str, name: str) -> str:
    """Unified diff from the document as it is to the document as it should be."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), name, "as it should be", lineterm="")
    return "\n".join(lines)


def main() -> int:
    """Rewrite or check; the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.md")
    parser.add_argument("--check", action="store_true", help="write nothing, print the difference")
    options = parser.parse_args()
    stale = False
    for file in options.files or documents():
        old = file.read_text()
        new = renewed(old)
        stale = stale or new != old
        if options.check and new != old:
            print(difference(old, new, str(file)))
        elif new != old:
            file.write_text(new)
            print(f"rewrote {file}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide others of their names
    sys.exit(main())
