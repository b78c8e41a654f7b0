"""Pages in a real headless Chromium, driven over its debugging pipe."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from werkzeug.serving import make_server

from tilewright.api import sweep
from tilewright.explore.pages.dashboard import LiveStudy, make_app
from tilewright.explore.pages.study_figures import parallel_figure
from tilewright.explore.pages.study_report import write_study_report
from tilewright.explore.study.data import Axis, ParallelData, front_data
from tilewright.explore.study.opened import open_view, stamp
from tilewright.explore.study.view import StudyView

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-pipe", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)  # fmt: skip


class Browser:
    """One page of a Chromium; what it says on its console is kept."""

    def __init__(self, program: str, folder: Path) -> None:
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (to_child, from_child)]

        def place() -> None:
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(3, 4), preexec_fn=place,
        )  # fmt: skip
        for fd in (to_child, from_child, *high):
            os.close(fd)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, /, **parameters: object) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], 60)
            assert ready, "Chromium says nothing"
            self._buffer += os.read(self._from, 1 << 20)
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._listen(message.get("method", ""), message.get("params", {}))
        return message

    def _listen(self, method: str, said: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] == "error":
            self.complaints.append(json.dumps(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.complaints.append(json.dumps(said["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])

    def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Load a page; returns when the document is complete."""
        self.complaints.clear()
        self.requests.clear()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:  # noqa: ANN401 - what JavaScript says
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression is true."""
        for _ in range(200):
            if self.ask(f"Boolean({expression})"):
                return
            time.sleep(0.1)
        pytest.fail(f"never true: {expression}; console: {self.complaints}")

    def click(self, x: float, y: float) -> None:
        """A real click at a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def click_point(self, plot: str, trace: str, index: int = 0) -> None:
        """A click on a point of a Plotly figure, named by its trace."""
        place = f"""(() => {{
            const plot = document.querySelector({json.dumps(plot)});
            plot.scrollIntoView({{block: "center"}});
            const trace = plot._fullData.find((each) => each.name === {json.dumps(trace)});
            const box = plot.getBoundingClientRect(), layout = plot._fullLayout;
            const x = layout.xaxis, y = layout.yaxis;
            return [box.left + x._offset + x.c2p(x.d2c(trace.x[{index}])),
                    box.top + y._offset + y.c2p(y.d2c(trace.y[{index}]))];
        }})()"""
        self.ask(place)
        time.sleep(0.3)  # a hover of the scrolled page
        x, y = self.ask(place)
        self.click(x, y)

    def close(self) -> None:
        """End the Chromium."""
        self._process.terminate()
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium, if the machine has one; the only thing that these tests may lack. What the pages hold is
    also tested without it, in `test_study_figures` and `test_dashboard`."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip(
            "no Chromium on this machine: pages are tested as HTML only (Debian: apt install chromium)"
        )
    found = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture
def view(study_folder: Path) -> StudyView:
    return open_view(study_folder)


@pytest.fixture(scope="module")
def report(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    page = tmp_path_factory.mktemp("report") / "study.html"
    write_study_report(open_view(study_folder), page)
    return page.as_uri()


@pytest.fixture(scope="module")
def dashboard(study_folder: Path) -> Iterator[str]:
    study = LiveStudy(lambda: open_view(study_folder), lambda: stamp(study_folder))
    server = make_server("127.0.0.1", 0, make_app(study, refresh_s=0.5).server, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def distinct(view: StudyView) -> list[tuple[int, str]]:
    """Points of the front that no other lies on, with their numbers in the figure."""
    front = front_data(view).front
    places = list(zip(front.x, front.y, strict=True))
    return [(n, name) for n, name in enumerate(front.point) if places.count(places[n]) == 1]


REPORT_PLOT = ".front .js-plotly-plot"
DASHBOARD_PLOT = "#front-plot .js-plotly-plot"
DASHBOARD_READY = (
    f"document.querySelector('{DASHBOARD_PLOT}')?._fullData?.some((t) => t.name === 'front')"
    " && document.querySelector('#overview section .main-svg')"
)
WIDE = "document.documentElement.scrollWidth > innerWidth"
DIM_TEXT = """[...document.querySelectorAll(".main-svg text")].filter((node) => {
  const light = (color) => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
                             return 0.299 * r + 0.587 * g + 0.114 * b; };
  const page = light(getComputedStyle(document.body).backgroundColor);
  return node.textContent && !node.closest(".barlayer, .hoverlayer")
    && Math.abs(light(getComputedStyle(node).fill) - page) < 80;
}).map((node) => node.textContent)"""
"""Texts of figures that hardly differ from the page behind them."""

OVERLAPPING = """(() => {
  const boxes = (css) => [...document.querySelectorAll(css)]
    .filter((node) => /[\\w]/.test(node.textContent))
    .map((node) => [node.textContent, node.getBoundingClientRect()]);
  const titles = boxes(".axis-title tspan.line");
  const rest = boxes(".axis text:not(.axis-title), .axis-extent text");
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  return titles.flatMap(([name, a]) => rest.filter(([, b]) => meet(a, b)).map(([text]) => [name, text]));
})()"""
"""Lines of titles of parallel axes, and the number or name that each lies on."""


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_report_loads_from_a_file(browser: Browser, report: str, width: int, dark: bool) -> None:
    """No complaint on the console, nothing fetched, nothing wider than the window, no text lost in the
    background."""
    browser.open(report, width=width, dark=dark)
    browser.wait("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 16")
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert not browser.ask(WIDE)
    assert browser.ask(DIM_TEXT) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_titles_of_parallel_axes_lie_on_nothing(browser: Browser, tmp_path: Path, width: int) -> None:
    """Titles of two and three lines leave the values at the ends of their axes readable."""
    axes = (
        Axis("buffers.scratchpad.capacity_bytes", (0.0, 1.0), ("131072", "262144")),
        Axis("quality.ImageNet-1K", (74.538, 81.7)),
        Axis("latency (ms)", (3.616, 42.225)),
    )
    page = tmp_path / "parallel.html"
    parallel_figure(ParallelData(axes, (True, False), 0)).write_html(page)
    browser.open(page.as_uri(), width=width)
    browser.wait("document.querySelectorAll('.axis-title tspan.line').length >= 5")
    assert browser.ask(OVERLAPPING) == []


def test_a_click_in_the_report_tells_the_point(browser: Browser, report: str, view: StudyView) -> None:
    """The point's figures, its command and its YAML, in the figure and in the table."""
    (number, first), *_, (_, last) = distinct(view)
    browser.open(report)
    browser.click_point(REPORT_PLOT, "front", number)
    browser.wait("document.querySelector('#point .yaml')")
    assert f"# point {first} of the study small" in browser.ask(
        "document.querySelector('#point .yaml').textContent"
    )
    assert browser.ask("document.querySelector('tr.chosen').dataset.point") == first
    browser.ask(f"document.querySelector('tr[data-point=\\'{last}\\']').click()")
    assert browser.ask("document.querySelector('#point h3').textContent") == f"Point {last}"
    assert "tilewright run gemmini-default" in browser.ask(
        "document.querySelector('#point .command').textContent"
    )
    assert browser.complaints == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_dashboard_loads(browser: Browser, dashboard: str, width: int, dark: bool) -> None:
    """As the report; all that it fetches comes from the dashboard itself."""
    browser.open(dashboard, width=width, dark=dark)
    browser.wait(DASHBOARD_READY)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith((dashboard, "data:", "blob:"))] == []
    assert not browser.ask(WIDE)
    assert browser.ask(DIM_TEXT) == []


def test_two_clicks_in_the_dashboard_compare(browser: Browser, dashboard: str, view: StudyView) -> None:
    """The first point's description, timeline and roofline; then the second one beside it."""
    (number, first), *_, (other, _) = distinct(view)
    browser.open(dashboard)
    browser.wait(DASHBOARD_READY)
    browser.click_point(DASHBOARD_PLOT, "front", number)
    browser.wait("document.querySelector('#yaml')")
    assert browser.ask("document.querySelector('#yaml').textContent").startswith(
        f"# point {first} of the study"
    )
    browser.wait("document.querySelector('#run-timeline-plot .main-svg, #run-roofline-plot .main-svg')")
    browser.ask("document.querySelectorAll('#slot input')[1].click()")
    browser.wait("document.querySelectorAll('#slot input')[1].checked")
    browser.wait(DASHBOARD_READY)
    browser.click_point(DASHBOARD_PLOT, "front", other)
    browser.wait("document.querySelector('#comparison h2')")
    assert browser.ask("document.querySelector('#comparison h2').textContent") == "A against B"
    rings = f"document.querySelector('{DASHBOARD_PLOT}')._fullData.map((t) => t.name)"
    browser.wait(f"{rings}.includes('B')")
    assert browser.complaints == []


FPGA_SPACE = """
accelerator: attention-unit
workloads: [{workload: attention, overrides: [workload.seq=64, workload.heads=1]}]
parameters:
  arch.array.rows: {values: [8, 16]}
objectives: [{name: cycles, goal: minimize}, {name: area_mm2.total, goal: minimize}]
"""


def test_a_click_in_the_report_tells_of_fpgas(browser: Browser, tmp_path: Path) -> None:
    """A shipped unit's cells and who measured them; of another unit, the command that would."""
    (tmp_path / "space.yaml").write_text(FPGA_SPACE)
    study, page = tmp_path / "study", tmp_path / "study.html"
    sweep(tmp_path / "space.yaml", study, jobs=1)
    write_study_report(open_view(study), page)
    browser.open(page.as_uri())
    for point, known in (("2", "LUTs of 6 inputs"), ("1", f"tilewright rtl {study}@1 -o build/ecp5/point-1")):
        browser.ask(f"document.querySelector('tr[data-point=\\'{point}\\']').click()")
        assert known in browser.ask("document.querySelector('#point').textContent")
    assert browser.complaints == []
    assert not browser.ask(WIDE)
