"""Processes of this machine that evaluate, whoever asks for it: the command line, a script or a notebook."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, ClassVar

_HAS_MASKS = hasattr(signal, "pthread_sigmask")
"""Not on Windows."""


class _Process(SpawnProcess):
    """A process that doesn't import the program it was started from, and has no interrupts while it starts.

    `spawn` would import it, so that a script without `if __name__ == "__main__":` ran again in each of its
    workers. What is sent to ours is all from this package.
    """

    def start(self) -> None:
        """Start it."""
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            with _interrupts_held():
                super().start()
        finally:
            sys.modules["__main__"] = program


class _Context(SpawnContext):
    Process: ClassVar[Any] = _Process


class Pool(ProcessPoolExecutor):
    """A pool that can be left while its processes are at something."""

    def abandon(self) -> None:
        """End the processes at once; what they were at is lost."""
        for process in list((self._processes or {}).values()):
            process.kill()
        self.shutdown(wait=True, cancel_futures=True)


def process_pool(jobs: int, *, finish: bool) -> Pool:
    """A pool of `jobs` processes. At Ctrl-C they finish what they are at, or, without `finish`, end at once.

    Functions and data that are sent to it come from importable modules, never from the program's main one.
    """
    # `spawn` is there on every system, and safe whatever threads the caller has
    return Pool(jobs, _Context(), _heed_interrupts, (not finish,))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """What is started meanwhile inherits that they are blocked; for this process they only come later."""
    if not _HAS_MASKS:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heed_interrupts(heed: bool) -> None:
    """Whether this process ends by an interrupt; either way it says nothing."""
    signal.signal(signal.SIGINT, signal.SIG_DFL if heed else signal.SIG_IGN)
    if _HAS_MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
