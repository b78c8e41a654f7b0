"""The documents show what the commands print today."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from docs.regenerate import documents, marked, renewed
from docs.validation_plot import points
from tilewright.description.errors import InputError
from tilewright.explore.validation.plot import svg
from tilewright.workloads.attention.choice import mechanisms
from tilewright.workloads.hugging_face import read_config

ROOT = Path(__file__).resolve().parent.parent
REGENERATE = ROOT / "docs" / "regenerate.py"
VALIDATION = "tilewright validate --format md"
"""Takes long, and is compared with docs/validation.md where `test_validation` has the results anyway."""
MARKED = [
    pytest.param(block, id=f"{file.relative_to(ROOT)}: {subject}")
    for file in documents()
    for subject, block in marked(file.read_text(encoding="utf-8"))
    if subject != VALIDATION
]


def regenerate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REGENERATE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("block", MARKED)
def test_document_is_up_to_date(block: str) -> None:
    """Each marked block is what its command prints, or what its file holds (else: `make golden`)."""
    assert renewed(block) == block


def test_readme_shows_the_commands_of_the_makefile() -> None:
    """The README's first output is that of the command which `make demo` runs, and both name `make test`."""
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    first = readme.split("<!-- output of: ", 1)[1].split(" -->", 1)[0]
    assert f"\t$(BIN)/{first}\n" in makefile
    assert readme.index("make demo") < readme.index(first) < readme.index("make test")


def test_readme_shows_how_a_bitstream_is_made() -> None:
    """The command that it spells out is that of `make bitstream`, and so is the one in docs/rtl.md but for
    the folder."""
    makefile = (ROOT / "Makefile").read_text()
    spelled = "tilewright rtl attention-unit-8x8 -o demo/rtl --bench --synth ecp5"
    assert f"$ {spelled}\n" in (ROOT / "README.md").read_text()
    assert f"\t$(BIN)/{spelled}\n" in makefile
    assert f"$ {spelled.replace('demo/rtl', 'build')}\n" in (ROOT / "docs" / "rtl.md").read_text()


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


def test_lines_of_progress_are_no_output(tmp_path: Path) -> None:
    """What a sweep says while it runs depends on the machine's speed, and is left out; its summary is not."""
    document = tmp_path / "page.md"
    prints = 'print("9 of 12 points"); print("1,200 of 1,200 points, 3 failed"); print("12 points done")'
    document.write_text(f"text\n\n<!-- output of: python -c '{prints}' -->\n```text\n```\n")
    assert regenerate(document).returncode == 0
    assert document.read_text().endswith("```text\n12 points done\n```\n")


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


def attention_rows(table: str) -> dict[str, list[str]]:
    """Rows of a table of docs/attention.md: the cells behind the name, by the name."""
    page = (ROOT / "docs" / "attention.md").read_text()
    made = page.split(f"<!-- table of: python -m docs.attention_table {table} -->", 1)[1]
    rows = made.split("<!-- end of table -->", 1)[0].strip().splitlines()[2:]
    cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return {name.strip("`¹² "): others for name, *others in cells}


def kinds_of(names: Iterable[str]) -> set[str]:
    return {name.partition(" ")[0] for name in names}


def test_every_attention_mechanism_is_in_the_tables() -> None:
    """Each registered kind has a row in the overview; each but masks in files has one with numbers."""
    kinds = set(mechanisms())
    assert kinds <= kinds_of(attention_rows("overview"))
    assert kinds - {"mask_file"} <= kinds_of(attention_rows("layer"))
    assert kinds - {"mask_file"} <= kinds_of(attention_rows("where"))


def test_every_attention_mechanism_has_numbers_at_each_length() -> None:
    """A row of the big table has four lengths, and a value for each of them in each column."""
    for name, cells in (attention_rows("layer") | attention_rows("decode")).items():
        assert cells[0] == "1 K<br>4 K<br>16 K<br>64 K", name
        assert all(len(cell.split("<br>")) == 4 for cell in cells), name


def test_every_oracle_test_of_the_table_exists() -> None:
    """The overview links each kind to a file of tests/oracles, or says that there is none yet."""
    for name, cells in attention_rows("overview").items():
        oracle = cells[-2]
        if oracle not in ("", "not yet"):
            path = re.fullmatch(r"\[test_\w+\.py\]\(\.\./(.*)\)", oracle)
            assert path is not None, name
            assert (ROOT / path[1]).is_file(), name


@pytest.mark.slow
@pytest.mark.parametrize("module", ["attention", "growth"])
def test_kept_numbers_of_attention_are_those_of_today(module: str) -> None:
    """The fixed sample of what docs/attention.md shows, simulated anew, is as kept to the last digit."""
    command = [sys.executable, "-m", f"benchmarks.{module}", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_validation_picture_is_that_of_the_tables() -> None:
    """docs/validation.svg has a dot per case of docs/validation.md; `make golden` draws it."""
    made = svg(points((ROOT / "docs" / "validation.md").read_text(encoding="utf-8")))
    assert (ROOT / "docs" / "validation.svg").read_text(encoding="utf-8") == made


def test_points_are_where_their_figures_say() -> None:
    """A case right on is on the diagonal, one predicted too high above it; names are escaped."""
    picture = svg({"a<b": [(10.0, 10.0)], "c": [(10.0, 100.0)]})
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', picture)
    (x1, y1), _, (x2, y2), _ = [(float(x), float(y)) for x, y in dots]

    assert "a&lt;b (1)" in picture
    assert x1 == x2
    assert y2 < y1
