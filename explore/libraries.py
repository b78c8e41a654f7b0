"""Libraries that a plain install does not bring."""

from __future__ import annotations

from importlib.util import find_spec

from tilewright.description.errors import InputError


def need(module: str, library: str, user: str, extra: str) -> None:
    """Raise `InputError` if `user` (an option, a method) can't go on without a library that is not there.

    To be asked before anything is begun. `module`: its import name; `extra`: what of ours brings it.
    """
    if find_spec(module) is None:
        raise InputError(f"{user} needs {library}, which is not installed: pip install 'tilewright[{extra}]'")
