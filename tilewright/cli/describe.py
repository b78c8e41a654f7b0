"""`tilewright list`, `show` and `schema`: what there is to simulate, without doing it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tilewright.cli.output import columns_text, csv_text, write_stdout
from tilewright.cli.technology import cost_facts, cost_table, sources_text, technology_rows
from tilewright.cli.texts import Format, FormatOption, Overrides
from tilewright.cli.validate import suite_rows
from tilewright.description.errors import InputError
from tilewright.description.prefixes import split_overrides

if TYPE_CHECKING:
    from tilewright.arch.accelerator import Accelerator
    from tilewright.arch.dram import Dram
    from tilewright.workloads.graph import OperatorGraph


class Listed(StrEnum):
    """What `list` lists."""

    ACCELERATORS = "accelerators"
    WORKLOADS = "workloads"
    ATTENTION = "attention"
    COMPRESSION = "compression"
    TECHNOLOGIES = "technologies"
    SUITES = "suites"


class Described(StrEnum):
    """What `schema` knows."""

    ACCELERATOR = "accelerator"
    WORKLOAD = "workload"
    SPACE = "space"
    SUITE = "suite"


def list_command(
    what: Annotated[Listed, typer.Argument(metavar="|".join(Listed), help="What to list.")],
    output_format: FormatOption = Format.TABLE,
) -> None:
    """List presets, mechanisms and techniques, technology tables of energy and area, or validation suites."""
    makers = {
        Listed.ACCELERATORS: _accelerator_rows,
        Listed.WORKLOADS: _workload_rows,
        Listed.ATTENTION: _attention_rows,
        Listed.COMPRESSION: _compression_rows,
        Listed.TECHNOLOGIES: technology_rows,
        Listed.SUITES: suite_rows,
    }
    rows = makers[what]()
    if output_format is Format.JSON:
        write_stdout(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    elif output_format is Format.CSV:
        write_stdout(csv_text(rows, list(rows[0])))
    else:
        write_stdout(columns_text(rows))


def _attention_rows() -> list[dict[str, object]]:
    from tilewright.workloads.attention.choice import mechanisms

    return [
        {
            "kind": kind,
            "class": ", ".join(each.taxonomy),
            "complexity": each.complexity,
            "encode": "yes" if each.encode else "no",
            "causal": "yes" if each.causal else "no",
            "decode": "yes" if each.decode else "no",
            "citation": each.citation,
        }
        for kind, each in mechanisms().items()
    ]


def _compression_rows() -> list[dict[str, object]]:
    from tilewright.workloads.compression.choice import compressions

    return [
        {
            "kind": kind,
            "title": each.title,
            "changes": each.changes,
            "citation": each.citation,
            "oracle": each.oracle,
        }
        for kind, each in compressions().items()
    ]


def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="An accelerator or a workload.")],
    overrides: Overrides = None,
    source: Annotated[
        bool,
        typer.Option(
            "--source", help="Print it as written, with the comments on where its figures come from."
        ),
    ] = False,
    training_memory: Annotated[
        bool,
        typer.Option(
            "--training-memory", help="Print instead what training a workload keeps in memory (16 bits)."
        ),
    ] = False,
    sources: Annotated[
        bool,
        typer.Option(
            "--sources", help="Print each constant behind an accelerator's energy and area, with its source."
        ),
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Show a resolved description, its peaks, area and totals. What is printed is itself a description."""
    arch_overrides, workload_overrides = split_overrides(overrides or [])
    if "@" in name:
        from tilewright.api import expand_point

        if source:
            raise InputError(f"{name!r} was not written by anyone: leave --source out to see its description")
        expanded, arch_overrides = expand_point(name, arch_overrides)
        name = str(expanded)
    kind = _kind_of(name)
    foreign = workload_overrides if kind == "accelerator" else arch_overrides
    if foreign:
        raise InputError(f"override {foreign[0]!r} does not fit: {name!r} describes the {kind}")
    if source and overrides:
        raise InputError(f"--source prints {name!r} as it was written: leave out {overrides[0]!r}")
    if training_memory and (source or kind == "accelerator"):
        raise InputError("--training-memory is of a workload, and without --source")
    if source and sources:
        raise InputError("--source prints a description, --sources its constants: leave out one of them")
    if sources and kind == "workload":
        raise InputError(f"--sources prints an accelerator's constants; {name!r} is a workload")
    if output_format is not Format.TABLE and not sources:
        raise InputError(f"--format {output_format.value} goes with --sources; without it, YAML is printed")
    if training_memory:
        write_stdout(_training_memory_text(name, workload_overrides))
    elif sources:
        write_stdout(_sources(name, arch_overrides, output_format))
    elif source:
        write_stdout(_source(name, kind))
    elif kind == "accelerator":
        write_stdout(_accelerator_text(name, arch_overrides))
    else:
        write_stdout(_workload_text(name, workload_overrides))


def schema_command(
    what: Annotated[Described, typer.Argument(metavar="|".join(Described), help="Of which description.")],
) -> None:
    """Print the JSON Schema of a description, for editors."""
    if what is Described.ACCELERATOR:
        from tilewright.arch.load import accelerator_schema as schema
    elif what is Described.WORKLOAD:
        from tilewright.workloads.load import workload_schema as schema
    elif what is Described.SPACE:
        from tilewright.explore.space.schema import space_schema as schema
    else:
        from tilewright.explore.validation.suite import suite_schema as schema
    write_stdout(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")


def _accelerator_rows() -> list[dict[str, object]]:
    from tilewright.arch import load

    rows: list[dict[str, object]] = []
    for name in load.preset_names():
        accelerator = load.load_accelerator(name)
        array = accelerator.array
        rows.append(
            {
                "name": name,
                "macs_per_cycle": accelerator.macs_per_cycle,
                "arrays": f"{accelerator.cores * array.count} x {array.rows}x{array.cols} {array.operand}",
                "dataflow": array.dataflow,
                "clock_mhz": accelerator.clock_mhz,
                "description": _first_sentence(accelerator.description),
            }
        )
    return rows


def _workload_rows() -> list[dict[str, object]]:
    from tilewright.workloads import load

    rows: list[dict[str, object]] = []
    for name in load.preset_names():
        description = load.describe_workload(name, ())
        rows.append(
            {
                "name": name,
                "family": description.model_dump()["family"],
                "description": _first_sentence(type(description).__doc__ or ""),
            }
        )
    return rows


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", " ".join(text.split()), maxsplit=1)[0].rstrip(".")


def _kind_of(name: str) -> Literal["accelerator", "workload"]:
    """Whether `name` is an accelerator or a workload; `InputError` if it is neither."""
    from tilewright.arch import load as arch
    from tilewright.description.files import read_text
    from tilewright.description.names import closest
    from tilewright.workloads import load as workloads

    if name in arch.preset_names():
        return "accelerator"
    path = Path(name)
    if name in workloads.preset_names() or path.suffix in {".json", ".csv", ".onnx"}:
        return "workload"
    if path.suffix in {".yaml", ".yml"} or (name and path.exists()):
        return "workload" if re.search(r"^family\s*:", read_text(name), re.MULTILINE) else "accelerator"
    hint = closest(name, (*arch.preset_names(), *workloads.preset_names()))
    raise InputError(
        f"no accelerator, workload or file is called {name!r}{hint and ', '}{hint} "
        "(tilewright list accelerators and tilewright list workloads show them all)"
    )


def _source(name: str, kind: Literal["accelerator", "workload"]) -> str:
    from tilewright.arch import load as arch
    from tilewright.description.files import read_text
    from tilewright.workloads import load as workloads

    home = arch if kind == "accelerator" else workloads
    return home.preset_text(name) if name in home.preset_names() else read_text(name)


def _sources(name: str, overrides: Sequence[str], output_format: Format) -> str:
    from tilewright.arch.load import load_accelerator

    return sources_text(load_accelerator(name, overrides), output_format)


def _accelerator_text(name: str, overrides: Sequence[str]) -> str:
    from tilewright.arch.load import load_accelerator, to_yaml

    accelerator = load_accelerator(name, overrides)
    facts = [*_accelerator_facts(accelerator), *cost_facts(accelerator)]
    by_component = "".join(f"#   {line}\n" for line in cost_table(accelerator).splitlines())
    return _commented(facts) + by_component + to_yaml(accelerator)


def _accelerator_facts(accelerator: Accelerator) -> list[tuple[str, str]]:
    from tilewright.sim.quantities import binary_bytes, count

    clock_hz = accelerator.clock_mhz * 1e6
    peak = accelerator.macs_per_cycle
    on_chip = sum(buffer.capacity_bytes for buffer in accelerator.buffers.values()) * accelerator.cores
    lanes = accelerator.cores * accelerator.vector.lanes
    return [
        ("array peak", f"{count(peak)} MACs/cycle, {peak * clock_hz / 1e12:,.4g} TMAC/s"),
        ("vector peak", f"{count(lanes)} elements/cycle, {lanes * clock_hz / 1e9:,.4g} G elements/s"),
        ("on chip", f"{binary_bytes(on_chip)} in all cores" if on_chip else "unlimited and free"),
        ("DRAM peak", _dram_peak(accelerator.dram, clock_hz)),
    ]


def _dram_peak(dram: Dram, clock_hz: float) -> str:
    if dram.kind == "ideal":
        return "unlimited"
    if dram.kind == "flat":
        per_second = dram.bytes_per_cycle * clock_hz
    else:
        per_second = dram.channels * dram.bus_bytes * dram.transfers_per_second
    return f"{per_second / 1e9:,.4g} GB/s, {per_second / clock_hz:,.4g} bytes/cycle"


def _workload_text(name: str, overrides: Sequence[str]) -> str:
    from tilewright.workloads.load import describe_workload, load_workload, to_yaml

    graph = load_workload(name, overrides)
    return _commented(_workload_facts(graph)) + to_yaml(describe_workload(name, overrides))


def _training_memory_text(name: str, overrides: Sequence[str]) -> str:
    from tilewright.sim.quantities import binary_bytes
    from tilewright.workloads.load import describe_workload, load_workload
    from tilewright.workloads.training_memory import training_report

    run = describe_workload(name, overrides).model_dump()
    if run.get("generate") or run.get("phase") == "decode":
        raise InputError(f"{name}: training has no decode steps; leave out `generate` and `phase=decode`")
    graph = load_workload(name, overrides)
    return columns_text(
        [
            {
                "strategy": row.strategy,
                "kept": binary_bytes(row.kept_bytes),
                "working": binary_bytes(row.working_bytes),
                "total": binary_bytes(row.total_bytes),
                "recomputed_macs": row.recomputed_macs,
                "share_of_forward": row.recomputed_macs / graph.macs if graph.macs else 0.0,
            }
            for row in training_report(graph)
        ]
    )


def _workload_facts(graph: OperatorGraph) -> list[tuple[str, str]]:
    from tilewright.sim.quantities import count, short

    kinds: dict[str, int] = {}
    for index, operator in enumerate(graph.operators):
        kinds[operator.kind] = kinds.get(operator.kind, 0) + graph.times(index)
    by_kind = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items(), key=lambda k: -k[1]))
    return [
        ("parameters", f"{count(graph.parameters)} ({short(graph.parameters)})"),
        ("MACs", f"{count(graph.macs)} ({short(graph.macs)})"),
        ("operators", f"{count(sum(kinds.values()))}: {by_kind}"),
    ]


def _commented(facts: Sequence[tuple[str, str]]) -> str:
    return "".join(f"# {name:<12} {text}\n" for name, text in facts)
