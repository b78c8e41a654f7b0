"""The documents show what the commands print today."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tilewright.description.errors import InputError
from tilewright.workloads.hugging_face import read_config

ROOT = Path(__file__).resolve().parent.parent
REGENERATE = ROOT / "docs" / "regenerate.py"
MARKED = sorted(
    file
    for file in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/*.md"),
    ]
    if any(f"\n<!-- {what} of: " in file.read_text() for what in ("output", "contents", "table"))
)


def regenerate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REGENERATE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("document", MARKED, ids=lambda file: file.name)
def test_document_is_up_to_date(document: Path) -> None:
    """Each marked block is what its command prints, or what its file holds (else: `make golden`)."""
    done = regenerate("--check", document)
    assert done.returncode == 0, done.stdout + done.stderr


def test_readme_shows_the_commands_of_the_makefile() -> None:
    """The README's first output is that of the command which `make demo` runs, and both name `make test`."""
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    first = readme.split("<!-- output of: ", 1)[1].split(" -->", 1)[0]
    assert f"\t$(BIN)/{first}\n" in makefile
    assert readme.index("make demo") < readme.index(first) < readme.index("make test")


def test_stale_block_is_shown_and_mended(tmp_path: Path) -> None:
    """`--check` prints the difference and changes nothing; without it the block is rewritten."""
    document = tmp_path / "page.md"
    page = (
        "text\n\n<!-- output of: python -c 'print(1 + 1)' -->\n```text\n{}\n```\n\n```text\nunmarked\n```\n"
    )
    document.write_text(page.format(3))
    checked = regenerate("--check", document)
    assert checked.returncode == 1
    assert "\n-3\n+2\n" in checked.stdout
    assert document.read_text() == page.format(3)
    assert regenerate(document).returncode == 0
    assert document.read_text() == page.format(2)
    assert regenerate("--check", document).returncode == 0


def test_table_is_shown_and_mended(tmp_path: Path) -> None:
    """A marked table is replaced by what its command prints, as Markdown."""
    document = tmp_path / "page.md"
    page = "text\n\n<!-- table of: python -c 'print(\"| a |\")' -->\n{}<!-- end of table -->\n\nmore\n"
    document.write_text(page.format(""))
    assert regenerate("--check", document).returncode == 1
    assert document.read_text() == page.format("")
    assert regenerate(document).returncode == 0
    assert document.read_text() == page.format("\n| a |\n\n")
    assert regenerate("--check", document).returncode == 0


def test_a_failing_script_is_no_output(tmp_path: Path) -> None:
    """A traceback never gets into a document."""
    document = tmp_path / "page.md"
    document.write_text("text\n\n<!-- output of: python -c 1/0 -->\n```text\n```\n")
    done = regenerate(document)
    assert done.returncode == 1
    assert "ended with exit code 1" in done.stderr
    assert document.read_text().endswith("```text\n```\n")


def test_every_supported_model_type_is_documented(tmp_path: Path) -> None:
    """The error that lists the supported model types and the table in docs/workloads.md name the same."""
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "nonsense"}')
    with pytest.raises(InputError) as caught:
        read_config(config)
    supported = re.search(r"\(supported: (.*)\)", str(caught.value))
    assert supported is not None
    page = (ROOT / "docs" / "workloads.md").read_text()
    rows = re.findall(r"^\| (`.*?) \| `\w+` \|", page.split("| `model_type` |", 1)[1], re.MULTILINE)
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(rows))) == supported[1].split(", ")
