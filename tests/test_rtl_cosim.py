"""Co-simulation: the compiled model, Amaranth's simulator and plain Python agree beat by beat."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.rtl import cosim
from tilewright.rtl.cosim import CompileError, simulator
from tilewright.rtl.cosim_python import PythonSimulator
from tilewright.rtl.ports import Field, Ports, Stream, Wire, ports_of
from tilewright.rtl.streams import (
    Simulator,
    Sink,
    Source,
    StuckError,
    Trace,
    pack,
    to_integers,
    to_words,
    unpack,
)

A_BITS, B_BITS, O_BITS = 45, 8, 48
DEPTH = 2


class Adder(wiring.Component):  # type: ignore[misc] # amaranth has no types
    """`o` = `a` (through a FIFO, `busy` while it holds a beat) + `b`; `a` is a structure of two fields."""

    def __init__(self) -> None:
        layout = data.StructLayout({"low": unsigned(5), "high": signed(40)})
        super().__init__(
            {
                "a": In(stream.Signature(layout)),
                "b": In(stream.Signature(B_BITS)),
                "o": Out(stream.Signature(O_BITS)),
                "busy": Out(1),
                "level": Out(2),
            }
        )

    def elaborate(self, _: object) -> Module:
        m = Module()
        m.submodules.fifo = queue = fifo.SyncFIFO(width=A_BITS, depth=DEPTH)
        go = Signal()
        m.d.comb += [
            queue.w_data.eq(self.a.payload.as_value()),
            queue.w_en.eq(self.a.valid),
            self.a.ready.eq(queue.w_rdy),
            go.eq(self.o.valid & self.o.ready),
            self.o.valid.eq(queue.r_rdy & self.b.valid),
            self.o.payload.eq(queue.r_data + self.b.payload),
            queue.r_en.eq(go),
            self.b.ready.eq(go),
            self.busy.eq(queue.r_rdy),
            self.level.eq(queue.level),
        ]
        return m


Beats = dict[str, list[int]]


def reference(a: list[int], gaps: Beats) -> tuple[int, Beats, int]:
    """Cycles, when each stream's beats are taken, and cycles busy, of `Adder`, by stepping its rules."""
    taken: Beats = {"a": [], "b": [], "o": []}
    queue: list[int] = []
    busy = cycle = 0
    while len(taken["o"]) < len(a):
        ready_at = {
            name: (times[-1] if times else -1) + 1 + gaps[name][len(times)]
            for name, times in taken.items()
            if len(times) < len(a)
        }
        able = {name: cycle >= ready_at.get(name, cycle + 1) for name in taken}
        moves_o = bool(queue) and able["b"] and able["o"]
        moves_a = able["a"] and len(queue) < DEPTH
        busy += bool(queue)
        if moves_o:
            queue.pop()
            taken["o"].append(cycle)
            taken["b"].append(cycle)
        if moves_a:
            queue.insert(0, a[len(taken["a"])])
            taken["a"].append(cycle)
        cycle += 1
    return cycle, taken, busy


@pytest.fixture(scope="module", params=["cxxrtl", "pysim"])
def adder(request: pytest.FixtureRequest) -> Simulator:
    unit: Simulator = simulator(Adder) if request.param == "cxxrtl" else PythonSimulator(Adder)
    assert unit.engine == request.param
    return unit


def run(unit: Simulator, a: list[int], b: list[int], gaps: Beats, **limit: int) -> Trace:
    sources = {
        "a": Source(to_words(a, A_BITS), gaps["a"]),
        "b": Source(to_words(b, B_BITS), gaps["b"]),
    }
    return unit.run(sources, {"o": Sink(len(a), gaps["o"])}, **limit)


small = st.integers(0, 3)
beats = st.tuples(st.integers(0, 2**A_BITS - 1), st.integers(0, 255), small, small, small)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(beats, min_size=1, max_size=20))
def test_beats_and_cycles_are_those_of_the_component(
    adder: Simulator, rows: list[tuple[int, int, int, int, int]]
) -> None:
    """Whatever the gaps: every payload, the cycle each beat is taken in, the counters are right."""
    a, b, *gaps = (list(column) for column in zip(*rows, strict=True))
    by_name = dict(zip("abo", gaps, strict=True))
    trace = run(adder, a, b, by_name)
    cycles, taken, busy = reference(a, by_name)
    assert to_integers(trace.payloads["o"]) == [x + y for x, y in zip(a, b, strict=True)]
    assert {name: list(times) for name, times in trace.taken.items()} == taken
    assert (trace.cycles, trace.active) == (cycles, {"busy": busy})


def test_every_run_starts_from_reset(adder: Simulator) -> None:
    """What an earlier run left in the unit does not reach the next one."""
    none: Beats = {"a": [], "b": [], "o": []}
    words = to_words([7, 8, 9], A_BITS)
    adder.run({"a": Source(words), "b": Source(to_words([1], B_BITS))}, {"o": Sink(1)})
    trace = run(adder, [1], [2], none)
    assert to_integers(trace.payloads["o"]) == [3]
    assert trace.cycles == 2


def test_a_unit_that_stops_is_reported(adder: Simulator) -> None:
    """A sink that never gets its beats ends the run at the limit, with what every stream has done."""
    words = to_words([1, 2, 3, 4], A_BITS)
    with pytest.raises(StuckError) as caught:
        adder.run({"a": Source(words), "b": Source(to_words([5], B_BITS))}, {"o": Sink(2)}, limit=50)
    assert str(caught.value) == "not finished after 50 cycles; beats taken: a 3 of 4, b 1 of 1, o 1 of 2"


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cosim, "cache_folder", lambda: tmp_path)
    return tmp_path


def test_a_kept_model_is_not_built_again(private_cache: Path) -> None:
    """With a key, the component is made once; later it is not even elaborated."""
    made = []

    def make() -> Adder:
        made.append(1)
        return Adder()

    for _ in range(3):
        assert simulator(make, "adder 1").engine == "cxxrtl"
    assert len(made) == 1
    simulator(make, "adder 2")
    assert len(made) == 2
    assert sorted(path.name for path in private_cache.iterdir() if path.name.startswith(".")) == []


def test_a_failing_compiler_is_reported(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler says is passed on, and nothing is kept."""
    monkeypatch.setattr(cosim, "find_compiler", lambda: ("false",))
    with pytest.raises(CompileError, match=r"^false -std"):
        simulator(Adder)
    assert list(private_cache.iterdir()) == []


def test_without_a_compiler_amaranth_simulates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither a C++ compiler nor ziglang still runs everything."""
    monkeypatch.setattr(cosim, "find_compiler", lambda: None)
    assert simulator(Adder).engine == "pysim"


def _only(names: set[str]) -> Callable[[str], str | None]:
    return lambda name: f"/usr/bin/{name}" if name in names else None


@pytest.mark.parametrize(
    ("chosen", "there", "found"),
    [
        ("", {"c++", "g++"}, ("c++",)),
        ("", {"clang++"}, ("clang++",)),
        ("my-c++ -m64", {"my-c++"}, ("my-c++", "-m64")),
        ("nothing", {"c++"}, None),
    ],
)
def test_the_compiler_is_found(
    chosen: str, there: set[str], found: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$CXX decides if it is set, else the first compiler that is there."""
    monkeypatch.setenv("CXX", chosen)
    monkeypatch.setattr(shutil, "which", _only(there))
    assert cosim.find_compiler.__wrapped__() == found


def test_waveforms_are_written(tmp_path: Path) -> None:
    """A run in Amaranth's simulator can leave a VCD file with the ports' names."""
    path = tmp_path / "adder.vcd"
    run(PythonSimulator(Adder, vcd=path), [1, 2], [3, 4], {"a": [], "b": [], "o": []})
    text = path.read_text(encoding="utf-8")
    assert "a__valid" in text
    assert "$enddefinitions" in text


@given(
    bits=st.integers(1, 20),
    count=st.integers(1, 9),
    signed_=st.booleans(),
    seed=st.integers(0, 99),
)
def test_packing_is_what_the_contract_says(bits: int, count: int, signed_: bool, seed: int) -> None:
    """Element e of a beat is at bits e · width, in two's complement, and comes back as it was."""
    low = -(1 << (bits - 1)) if signed_ else 0
    elements = np.random.default_rng(seed).integers(low, low + (1 << bits), (3, count))
    payloads = pack(elements, bits)
    wanted = [sum((int(e) % (1 << bits)) << (at * bits) for at, e in enumerate(beat)) for beat in elements]
    assert to_integers(payloads) == wanted
    assert np.array_equal(to_words(wanted, count * bits), payloads)
    assert np.array_equal(unpack(payloads, bits, count, signed=signed_), elements)


def test_too_few_gaps_are_refused(adder: Simulator) -> None:
    """A list of gaps that ends early is a mistake, not zeros."""
    with pytest.raises(ValueError, match=r"^1 gaps for 2 beats$"):
        run(adder, [1, 2], [3, 4], {"a": [1], "b": [], "o": []})


def test_ports_of_a_component() -> None:
    """Streams with their directions, widths and fields, and what is beside them."""
    unit = Adder()
    unit._MustUse__used = True
    assert ports_of(unit) == Ports(
        (
            Stream("a", True, A_BITS, (Field("low", 0, 5, False), Field("high", 5, 40, True))),
            Stream("b", True, B_BITS),
            Stream("o", False, O_BITS),
        ),
        (Wire("busy", False, 1), Wire("level", False, 2)),
    )
