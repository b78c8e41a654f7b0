"""Overrides that say what they are of: `arch.KEY=VALUE` and `workload.KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from tilewright.description.errors import InputError, Problem

PREFIXES = ("arch", "workload")
_LONG = {"architecture": "arch", "accelerator": "arch", "hardware": "arch", "model": "workload"}
"""What one may write instead, and is corrected."""


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of the accelerator and of the workload, prefixes and order kept.

    Raises `InputError` with every argument that is no override.
    """
    problems = [problem for problem in map(_problem, arguments) if problem]
    if problems:
        raise InputError(*problems)
    arch = [argument for argument in arguments if argument.startswith("arch.")]
    return arch, [argument for argument in arguments if not argument.startswith("arch.")]


def _problem(argument: str) -> Problem | None:
    key, equals, _ = argument.partition("=")
    if not equals:
        return Problem(
            f"unexpected argument {argument!r}; an override is written arch.KEY=VALUE or workload.KEY=VALUE"
        )
    prefix, dot, rest = key.partition(".")
    if not rest and (dot or prefix in ("", *PREFIXES)):
        return Problem(
            f"override {argument!r} names no key; an override is written arch.KEY=VALUE or workload.KEY=VALUE"
        )
    if dot and rest and prefix in PREFIXES:
        return None
    close = get_close_matches(_LONG.get(prefix.lower(), prefix.lower()).strip(), PREFIXES, n=1) if dot else []
    if close:
        return Problem(f"unknown prefix {prefix!r} in {argument!r}, did you mean {close[0]}.{rest}?")
    return Problem(
        f"override {argument!r} does not say of what: "
        f"write arch.{key}=… for the accelerator or workload.{key}=… for the workload"
    )
