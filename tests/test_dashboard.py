"""The dashboard's server: what it answers, what it refuses, how it follows a sweep."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tilewright.cli import ExitCode, execute
from tilewright.explore.pages.dashboard import LiveStudy, make_app
from tilewright.explore.study.opened import open_view, stamp
from tilewright.explore.study.view import POINT, StudyView
from tilewright.explore.sweep.store import FILE, NO_SPACE

if TYPE_CHECKING:
    from flask.testing import FlaskClient


@pytest.fixture
def study(study_folder: Path) -> LiveStudy:
    return LiveStudy(lambda: open_view(study_folder), lambda: stamp(study_folder), run_presets=False)


@pytest.fixture
def client(study: LiveStudy) -> FlaskClient:
    found: FlaskClient = make_app(study).server.test_client()
    return found


def ask(client: FlaskClient, output: str, changed: str, inputs: list[Any], state: list[Any] = []) -> Any:  # noqa: ANN401, B006
    """Call one callback as the page does; None where it changes nothing."""
    dependencies = client.get("/_dash-dependencies").get_json()
    found = next(each for each in dependencies if output in each["output"])
    many = found["output"].startswith("..")
    names = found["output"].strip(".").split("...")
    outputs: Any = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
    body = {
        "output": found["output"], "outputs": outputs if many else outputs[0], "changedPropIds": [changed],
        "inputs": [{**each, "value": value} for each, value in zip(found["inputs"], inputs, strict=True)],
        "state": [{**each, "value": value} for each, value in zip(found["state"], state, strict=True)],
    }  # fmt: skip
    answer = client.post("/_dash-update-component", json=body)
    assert answer.status_code in (200, 204), answer.text
    return (answer.get_json()["response"] or None) if answer.status_code == 200 else None


def texts(node: object) -> str:
    """All text of a piece of a page."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return " ".join(map(texts, node))
    return texts(node.get("props", {}).get("children", "")) if isinstance(node, dict) else ""


def test_a_click_chooses_a_point(client: FlaskClient, study: LiveStudy) -> None:
    """A and B are kept side by side; a name that is no point changes nothing."""
    view = study.view()
    a, b = (str(view.frame[POINT].iloc[row]) for row in view.front_rows[:2])

    def click(name: object, slot: str, chosen: dict[str, str]) -> Any:  # noqa: ANN401
        data = {"points": [{"customdata": name}]}
        return ask(client, "chosen.data", "front-plot.clickData", [data], [slot, chosen])

    assert click(a, "A", {})["chosen"]["data"] == {"A": a}
    assert click(b, "B", {"A": a})["chosen"]["data"] == {"A": a, "B": b}
    for name in ("../../etc/passwd", "", None, 7, ["1"], {"a": 1}):
        assert click(name, "A", {}) is None
    assert click(a, "C", {}) is None


def test_a_chosen_point_is_shown(client: FlaskClient, study: LiveStudy) -> None:
    """Its YAML, its command, its breakdowns; a second one is compared with it."""
    view = study.view()
    a, b = (str(view.frame[POINT].iloc[row]) for row in (view.front_rows[0], view.front_rows[-1]))
    alone = ask(client, "panel.children", "chosen.data", [{"A": a}])
    shown = texts(alone["panel"]["children"])
    assert f"# point {a} of the study small" in shown
    assert "tilewright run gemmini-default encoder_block arch.array.rows=" in shown
    assert alone["compare"]["children"] == []
    both = texts(ask(client, "panel.children", "chosen.data", [{"A": a, "B": b}])["compare"]["children"])
    assert "A against B" in both
    assert "times the time of A" in both


def test_a_chosen_point_is_run_again(client: FlaskClient, study: LiveStudy) -> None:
    """Timeline and roofline of the chosen workload; of a workload or a point that is not there, nothing."""
    name = str(study.view().frame[POINT].iloc[0])
    sections = ask(client, "run.children", "chosen.data", [{"A": name}, 1])["run"]["children"]
    assert [section["props"]["id"] for section in sections] == ["run-timeline", "run-roofline"]
    assert "long. " in texts(sections)
    assert ask(client, "run.children", "chosen.data", [{"A": name}, 9]) is None
    assert ask(client, "run.children", "chosen.data", [{"A": "none"}, 0])["run"]["children"] == []


def test_yaml_can_be_saved(client: FlaskClient, study: LiveStudy) -> None:
    """Under the name of the point; not before the button was pressed."""
    name = str(study.view().frame[POINT].iloc[0])
    found = ask(client, "download.data", "save.n_clicks", [1], [{"A": name}])["download"]["data"]
    assert found["filename"] == f"point-{name}.yaml"
    assert found["content"].startswith(f"# point {name} of the study small\nname: gemmini-default\n")
    assert ask(client, "download.data", "save.n_clicks", [None], [{"A": name}]) is None


def test_the_front_has_the_asked_axes(client: FlaskClient) -> None:
    """An objective that there is not is answered with one that there is."""
    figure = ask(client, "front-plot.figure", "x.value", ["1", 1, 0, {}])["front-plot"]["figure"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "area (mm²)"
    figure = ask(client, "front-plot.figure", "x.value", ["1", 99, "a", {}])["front-plot"]["figure"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "latency (µs)"


def test_the_page_follows_a_sweep(study_folder: Path) -> None:
    """Nothing is sent while nothing changes; a new row is there with the next look."""
    whole = open_view(study_folder)
    state = {"view": replace(whole, frame=whole.frame.iloc[:3]), "stamp": "1"}

    def read() -> StudyView:
        view = state["view"]
        assert isinstance(view, StudyView)
        return view

    live = LiveStudy(read, lambda: str(state["stamp"]), run_presets=False)
    client = make_app(live).server.test_client()
    seen = ask(client, "version.data", "tick.n_intervals", [0], [None])["version"]["data"]
    assert ask(client, "version.data", "tick.n_intervals", [1], [seen]) is None
    assert "3 points so far" in texts(
        ask(client, "cards.children", "version.data", [seen])["lead"]["children"]
    )
    state |= {"view": whole, "stamp": "2"}
    newer = ask(client, "version.data", "tick.n_intervals", [2], [seen])["version"]["data"]
    assert newer != seen
    assert "20 points so far" in texts(
        ask(client, "cards.children", "version.data", [newer])["lead"]["children"]
    )


def test_shipped_machines_come_beside_the_front(study_folder: Path, tmp_path: Path) -> None:
    """They are run while the page is there already, and drawn when they are known; the next dashboard has
    them at once."""
    folder = tmp_path / "study"
    shutil.copytree(study_folder, folder)
    with sqlite3.connect(folder / FILE) as db:  # what other tests had run
        db.execute("DELETE FROM points WHERE space = ?", (NO_SPACE,))
    live = LiveStudy(lambda: open_view(folder), lambda: stamp(folder))
    client = make_app(live).server.test_client()
    before = live.version

    def drawn() -> Any:  # noqa: ANN401
        return ask(client, "front-plot.figure", "version.data", [live.version, 0, 1, {}])

    answer = drawn()
    assert "Shipped machines are being run for comparison." in answer["front-remarks"]["children"]
    for _ in range(600):
        if not live.presets().missing:
            break
        time.sleep(0.05)
    assert live.version != before
    traces = {trace["name"]: trace for trace in drawn()["front-plot"]["figure"]["data"]}
    shown = traces["presets"]
    assert set(shown["text"]) <= set(live.presets().figures)
    assert all(name in hover for name, hover in zip(shown["text"], shown["hovertext"], strict=True))
    again = LiveStudy(lambda: open_view(folder), lambda: stamp(folder), run_presets=False)
    assert again.presets() == live.presets()


@pytest.mark.parametrize(
    "path",
    [
        "/assets/api.py", "/assets/../pyproject.toml", "/assets/..%2f..%2fpyproject.toml",
        "/../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
        "/study.sqlite", "/small.yaml",
        "/static/study.sqlite", "/_dash-component-suites/tilewright/api.py",
        "/_dash-component-suites/dash/dash.py", "/_dash-component-suites/dash/../../../../etc/passwd",
        "/_dash-component-suites/dash/dcc/..%2f..%2fdash.py", "/etc/passwd",
    ],
)  # fmt: skip
def test_no_file_can_be_fetched(client: FlaskClient, path: str) -> None:
    """Whatever is asked for: the page itself, or nothing. Not even the study's own files are served."""
    answer = client.get(path)
    assert answer.status_code in (200, 308, 403, 404), answer.text
    if answer.status_code == 200:
        assert answer.mimetype == "text/html"
        assert '<div id="react-entry-point">' in answer.text
    for secret in ("root:", "SQLite format", "import ", "[project]", "parameters:"):
        assert secret not in answer.text


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("127.0.0.1:8050", 200), ("localhost:8050", 200), ("localhost", 200), ("[::1]:8050", 200),
        ("[::1]", 200),
        ("evil.example:8050", 403), ("evil.example", 403), ("127.0.0.1.evil.example", 403),
    ],
)  # fmt: skip
def test_loopback_answers_to_its_own_names(client: FlaskClient, name: str, status: int) -> None:
    """A page elsewhere can't read the study through a host name of its own that leads here."""
    assert client.get("/", headers={"Host": name}).status_code == status


def test_other_addresses_answer_to_any_name(study: LiveStudy) -> None:
    """Who binds it to the network has named machines of their own."""
    client = make_app(study, "0.0.0.0").server.test_client()
    assert client.get("/", headers={"Host": "lab.example"}).status_code == 200


def test_a_folder_without_a_study_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is served."""
    assert execute(["dashboard", str(tmp_path)]) == ExitCode.BAD_INPUT
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no study here")


def test_an_address_that_is_taken_is_told(study_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert execute(["dashboard", str(study_folder), "--port", str(port)]) == ExitCode.BAD_INPUT
    error = f"error: can't serve on 127.0.0.1:{port}: taken, or no address of this machine; try --port 0\n"
    assert capsys.readouterr().err.endswith(error)


def test_the_command_serves_until_interrupted(study_folder: Path) -> None:
    """It says where, answers there, and Ctrl-C ends it quietly with 130."""
    command = [sys.executable, "-m", "tilewright", "dashboard", str(study_folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split()[2]
        assert line == f"Listening on {address} - Ctrl-C to quit\n"
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as answer:
            assert b"react-entry-point" in answer.read()
        os.kill(process.pid, signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # or the test would wait for ever
    assert (process.returncode, errors) == (130, "interrupted\n")
