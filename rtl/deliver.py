"""What `tilewright rtl` writes: the unit's Verilog, and what is needed to check it and to build it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.description.errors import InputError
from tilewright.rtl.bench import Stimulus, bench_files
from tilewright.rtl.cosim_python import PythonSimulator
from tilewright.rtl.example import beats_of, example_gaps, example_heads
from tilewright.rtl.fpga_scripts import scripts
from tilewright.rtl.job import Job
from tilewright.rtl.model import attention
from tilewright.rtl.ports import Ports, description, ports_of
from tilewright.rtl.readme import readme
from tilewright.rtl.replace import MARK, check_replaceable, digests
from tilewright.rtl.unit import AttentionUnit
from tilewright.rtl.unit_run import Gaps, channels, output_beats
from tilewright.rtl.verilog import TOP, verilog

ExpectedCycles = Callable[[Sequence[Job], Gaps], int]
"""Cycles that the simulator says for jobs with these gaps."""


@dataclass(frozen=True)
class Delivery:
    """A folder that was written."""

    directory: Path
    files: tuple[str, ...]
    """Paths in it, sorted."""
    parameters: UnitSizes
    heads: int
    """That the test bench sends through the unit."""
    bench_cycles: int
    """In which they are expected to be done."""


@dataclass(frozen=True)
class Content:
    """What is to be written, before it is."""

    texts: Mapping[str, str]
    """By path."""
    parameters: UnitSizes
    stimulus: Stimulus
    heads: int


def unit_content(
    parameters: UnitSizes, accelerator: str, described: str, expected_cycles: ExpectedCycles, formula: str
) -> Content:
    """All files of a unit. `accelerator` is what to call the machine that has it, `described` its YAML,
    `formula` Markdown on its cycles."""
    unit = AttentionUnit(parameters)
    ports = ports_of(unit)
    stimulus, heads = example_stimulus(ports, parameters, expected_cycles)
    texts = {
        f"{TOP}.v": verilog(unit),
        **bench_files(ports, TOP, stimulus),
        "lint.vlt": (files("tilewright.rtl") / "lint.vlt").read_text(encoding="utf-8"),
        **scripts(ports, parameters),
        "accelerator.yaml": described,
    }
    texts["README.md"] = readme(parameters, ports, accelerator, heads, stimulus.expected_cycles, formula)
    mark = description(TOP, ports, parameters) | {"files": digests(texts)}
    texts[MARK] = json.dumps(mark, indent=2) + "\n"
    return Content(texts, parameters, stimulus, heads)


def example_stimulus(
    ports: Ports, parameters: UnitSizes, expected_cycles: ExpectedCycles
) -> tuple[Stimulus, int]:
    """The test bench's run, its outputs from the numpy model, and its number of heads."""
    heads = example_heads(parameters)
    gaps = example_gaps(beats_of(parameters, heads))
    sources, sinks = channels(ports.stream("command"), parameters, heads, gaps)
    outputs = [attention(parameters, head.job, head.q, head.k, head.v) for head in heads]
    ones = [np.full(output.shape, -1, np.int64) for output in outputs]
    return Stimulus(
        sources,
        sinks,
        {"o": output_beats(parameters, heads, outputs)},
        {"o": output_beats(parameters, heads, ones)},
        expected_cycles([head.job for head in heads], gaps),
    ), len(heads)


def write_content(content: Content, directory: Path, *, vcd: bool = False) -> Delivery:
    """Write `content` to `directory`, which appears whole or not at all; one that was written before is
    replaced. `vcd` adds a waveform of the test bench's run. Raises `InputError` if it can't be written, or
    holds other files (`tilewright.rtl.replace`)."""
    try:
        target = directory.resolve()
        check_replaceable(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as made:
            part = Path(made) / "new"
            for name, text in content.texts.items():
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).write_text(text, encoding="utf-8")
            if vcd:
                _write_waveform(content, part / f"{TOP}.vcd")
            names = sorted(str(path.relative_to(part)) for path in part.rglob("*") if path.is_file())
            if target.exists():
                target.rename(Path(made) / "old")
            part.rename(target)
    except OSError as error:
        raise InputError(f"can't write {directory}: {(error.strerror or str(error)).lower()}") from error
    cycles = content.stimulus.expected_cycles
    return Delivery(directory, tuple(names), content.parameters, content.heads, cycles)


def _write_waveform(content: Content, path: Path) -> None:
    stimulus = content.stimulus
    PythonSimulator(lambda: AttentionUnit(content.parameters), vcd=path).run(stimulus.sources, stimulus.sinks)
