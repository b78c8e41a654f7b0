"""A study's figures in the browser, live while its sweep runs (Dash).

Nothing is read by a name that comes over the network: a point is looked up in the study, and what is not in
it does not exist. The server answers only to the names of the address that it is bound to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from os import devnull
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from tilewright.description.errors import InputError
from tilewright.explore.libraries import need
from tilewright.explore.study.points import point_result
from tilewright.explore.study.presets import Presets, find_presets, knee_work, nearest_presets
from tilewright.explore.study.view import StudyView
from tilewright.sim.result import Result

if TYPE_CHECKING:
    import dash

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RESULTS_KEPT = 16


class LiveStudy:
    """The study as it is now: read again when `stamp` says that it has changed."""

    def __init__(
        self, read: Callable[[], StudyView], stamp: Callable[[], str], *, run_presets: bool = True
    ) -> None:
        self._read = read
        self._stamp = stamp
        self._presets: dict[object, Presets] = {}
        self._runs_presets = not run_presets  # as if that were under way
        self._lock = Lock()
        self._view: StudyView | None = None
        self._version = ""
        self.result = lru_cache(maxsize=RESULTS_KEPT)(self._result)
        """A point's run, by point and number of the workload; the last few are kept."""

    @property
    def version(self) -> str:
        """Changes when the study does, and when machines beside it are known."""
        return f"{self._stamp()} {len(self._presets)}"

    def view(self) -> StudyView:
        """The latest state."""
        with self._lock:
            version = self._stamp()
            if self._view is None or version != self._version:
                self._view, self._version = self._read(), version
            return self._view

    def presets(self) -> Presets:
        """The machines nearest to the knee, as far as they are known; the others are run meanwhile."""
        view = self.view()
        wanted = (tuple(nearest_presets(view)), knee_work(view))
        known = self._presets.get(wanted) or find_presets(view, run=False)
        if known.missing:
            with self._lock:
                if not self._runs_presets:
                    self._runs_presets = True
                    Thread(target=self._run_presets, args=(view, wanted), daemon=True).start()
        return known

    def _run_presets(self, view: StudyView, wanted: object) -> None:
        try:
            found = find_presets(view)
        except InputError:  # the study was taken away
            found = Presets({}, {}, missing=False)
        self._presets[wanted] = found
        self._runs_presets = False

    def _result(self, point: str, workload: int) -> Result | None:
        view = self.view()
        row = view.row_of(point)
        return None if row is None else point_result(view, row, view.workloads[workload])


def make_app(study: LiveStudy, host: str = "127.0.0.1", refresh_s: float = 2.0) -> dash.Dash:
    """The application; `refresh_s` is how often a page asks whether there is something new.

    Raises `InputError` if Dash is not installed.
    """
    need("dash", "Dash", "the dashboard (not `tilewright report`)", "dashboard")
    import dash

    from tilewright.explore.pages.dashboard_callbacks import connect
    from tilewright.explore.pages.dashboard_layout import INDEX, layout

    app = dash.Dash(
        "tilewright", server=_server(host), title=f"{study.view().name} - tilewright", update_title="",
        include_assets_files=False, assets_folder=devnull,  # which holds no file: by default it's the package
        serve_locally=True, suppress_callback_exceptions=True, index_string=INDEX,
    )  # fmt: skip
    app.layout = lambda: layout(study.view(), refresh_s)
    connect(app, study)
    return app


def _server(host: str) -> Any:  # noqa: ANN401 - Dash declares another type than it takes
    """A server without a folder of files, which on loopback answers to loopback's names only: a page of
    another site can't reach it through a name that points here (DNS rebinding)."""
    from dash.exceptions import DependencyException
    from flask import Flask, abort, request

    server = Flask("tilewright", static_folder=None)
    server.register_error_handler(DependencyException, lambda _: ("no such file\n", 404))
    if host in LOOPBACK:

        @server.before_request
        def _asked_for_loopback() -> None:
            name = request.host.rpartition(":")[0] if not request.host.endswith("]") else request.host
            if (name or request.host).strip("[]") not in LOOPBACK:
                abort(403)

    return server


def serve(app: dash.Dash, host: str, port: int) -> None:
    """Serve until interrupted. Raises `InputError` if the address is taken or not ours."""
    import logging
    from http.server import HTTPServer

    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        server = make_server(host, port, app.server, threaded=True)
    except (OSError, SystemExit) as error:
        raise InputError(
            f"can't serve on {host}:{port}: taken, or no address of this machine; try --port 0"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    print(f"Listening on http://{shown}:{server.server_port}/ - Ctrl-C to quit", flush=True)
    try:
        HTTPServer.serve_forever(server)  # Werkzeug's own would swallow the Ctrl-C
    finally:
        server.server_close()
