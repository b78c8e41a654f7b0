"""`tilewright dashboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dashboard_command(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a sweep, finished or running.")
    ],
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Where to listen; other machines reach it by another than 127.0.0.1."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8050,
) -> None:
    """Serve a sweep's figures to a browser, live while it runs."""
    from tilewright.explore.pages.dashboard import LiveStudy, make_app, serve
    from tilewright.explore.study.opened import open_view, stamp

    study = LiveStudy(lambda: open_view(directory), lambda: stamp(directory))
    study.view()  # a folder without a study is told before anything is served
    serve(make_app(study, host), host, port)
