"""The tables of the reference pages, as Markdown, from the schema and the presets themselves.

    python -m docs.reference TABLE

TABLE is one of those in `TABLES`. `docs/regenerate.py` puts them into the documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from docs.markdown import print_one, table
from tilewright.arch.dram import BankedDram
from tilewright.arch.dram_standards import standards
from tilewright.arch.load import accelerator_schema, load_accelerator
from tilewright.arch.load import preset_names as accelerators
from tilewright.sim.quantities import binary_bytes, short
from tilewright.workloads.description import DecoderRun, Model
from tilewright.workloads.load import describe_workload, load_workload, workload_schema
from tilewright.workloads.load import preset_names as workloads

Schema = Mapping[str, Any]
BLOCKS = {
    "": "Accelerator",
    "array.": "Array",
    "vector.": "Vector",
    "vector.cycles.": "VectorCycles",
    "buffers.NAME.": "Buffer",
    "dma.": "Dma",
    "mapper.": "Mapper",
    "technology.": "TechnologyChoice",
}
NESTED = {
    "array",
    "vector",
    "vector.cycles",
    "buffers",
    "dram",
    "dma",
    "mapper",
    "technology",
    "technology.figures",
}
"""Keys that hold a block, which has rows of its own."""
DRAM_KINDS = {"ideal": "IdealDram", "flat": "FlatDram", "banked": "BankedDram"}


def accelerator_keys() -> str:
    """Every key of an accelerator but the DRAM's."""
    schema = accelerator_schema()
    blocks = {"Accelerator": schema, **schema["$defs"]}
    rows = [row for prefix, name in BLOCKS.items() for row in _rows(blocks[name], prefix, schema)]
    return table(("key", "value", "default", "meaning"), rows)


def dram_keys() -> str:
    """Every key of `dram`, by kind."""
    schema, rows = accelerator_schema(), []
    filled = {f"`dram.{key}`" for standard in standards().values() for key in standard.fields}
    for kind, name in DRAM_KINDS.items():
        for key, value, default, meaning in _rows(schema["$defs"][name], "dram.", schema):
            if key != "`dram.kind`":
                rows.append((kind, key, value, "the standard's" if key in filled else default, meaning))
    return table(("kind", "key", "value", "default", "meaning"), rows)


def dram_standards() -> str:
    """The figures of each DRAM standard."""
    rows = []
    for name in standards():
        dram = BankedDram.model_validate({"kind": "banked", "standard": name})
        peak = dram.channels * dram.bus_bytes * dram.transfers_per_second / 1e9
        figures = (
            dram.channels, peak, dram.banks, dram.row_bytes, dram.bus_bytes, dram.burst_length, dram.t_rcd_ns,
            dram.t_rp_ns, dram.t_cl_ns, dram.t_ras_ns, dram.t_rfc_ns, dram.t_refi_ns,
        )  # fmt: skip
        rows.append((f"`{name}`", *(f"{figure:.6g}" for figure in figures)))
    sizes = ("channels", "GB/s in all", "banks", "row", "bus", "burst")
    return table(("standard", *sizes, "tRCD", "tRP", "tCL", "tRAS", "tRFC", "tREFI"), rows)


def dram_sources() -> str:
    """Where the figures of each DRAM standard come from."""
    rows = [(f"`{name}`", each.confidence, each.source) for name, each in standards().items()]
    return table(("standard", "confidence", "source"), rows)


def accelerator_presets() -> str:
    """The shipped machines."""
    rows = []
    for name in accelerators():
        machine = load_accelerator(name)
        array = machine.array
        on_chip = sum(buffer.capacity_bytes for buffer in machine.buffers.values()) * machine.cores
        rows.append(
            (
                f"`{name}`",
                f"{machine.cores * array.count} × {array.rows}×{array.cols} {array.operand}",
                f"{'flexible, ' if array.flexible else ''}{array.dataflow.replace('_', ' ')}",
                f"{machine.clock_mhz:,g}",
                f"{machine.macs_per_cycle * machine.clock_mhz / 1e6:,.4g}",
                binary_bytes(on_chip) if on_chip else "unlimited",
                machine.dram.kind,
                machine.description.rstrip("."),
            )
        )
    heads = ("preset", "arrays", "dataflow", "MHz", "peak TMAC/s", "on chip", "DRAM", "what it is")
    return table(heads, rows)


def workload_fields() -> str:
    """Every family with its own fields, after those that many have."""
    schema = workload_schema()
    shared = set(Model.model_fields) | set(DecoderRun.model_fields)
    text = ""
    for family, reference in sorted(schema["discriminator"]["mapping"].items()):
        block = _resolved(reference, schema)
        own = [row for row in _rows(block, "", schema) if row[0].strip("`") not in shared | {"family"}]
        common = [f"`{key}`" for key in block["properties"] if key in shared - {"name", "element"}]
        text += f"### `family: {family}`\n\n{_first_paragraph(block)}"
        text += f" Also: {', '.join(common)}.\n\n" if common else "\n\n"
        text += table(("field", "value", "default", "meaning"), own) + "\n"
    return text.rstrip() + "\n"


def common_fields() -> str:
    """The fields that many families have."""
    schema = workload_schema()
    block = _resolved(schema["discriminator"]["mapping"]["gpt2"], schema)
    shared = {"family", *DecoderRun.model_fields}
    rows = [row for row in _rows(block, "", schema) if row[0].strip("`") in shared - {"family"}]
    return table(("field", "value", "default", "meaning"), rows)


def workload_presets() -> str:
    """The shipped workloads with their sizes."""
    rows = []
    for name in workloads():
        graph, model = load_workload(name), describe_workload(name).model_dump()
        tokens = f"seq {model['seq']}" if model.get("seq") else ""
        rows.append((f"`{name}`", model["family"], f"{graph.parameters:,}", short(graph.macs), tokens))
    return table(("preset", "family", "parameters", "MACs as it is", "at"), rows)


def _rows(block: Schema, prefix: str, schema: Schema) -> list[tuple[str, str, str, str]]:
    """(key, value, default, meaning) of each field of a block."""
    rows = []
    for key, field in block["properties"].items():
        if prefix + key not in NESTED:
            default = "required" if key in block.get("required", ()) else _default(field.get("default"))
            meaning = " ".join(str(field.get("description", "")).split()).replace("|", "\\|")
            rows.append((f"`{prefix}{key}`", _kind(field, schema), default, meaning))
    return rows


def _default(value: object) -> str:
    if value is None or value == "":
        return "—"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _kind(field: Schema, schema: Schema) -> str:
    if "$ref" in field:
        return _kind(_resolved(field["$ref"], schema), schema)
    if "discriminator" in field:
        return f"a block with a `{field['discriminator']['propertyName']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        options = [option for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(_kind(option, schema) for option in options)
    if field.get("type") == "array":
        inner = field.get("items") or field["prefixItems"][0]
        return f"list of {_kind(inner, schema)}"
    if field.get("type") == "object":
        return f"`{{{', '.join(field['properties'])}}}`" if "properties" in field else "a block"
    return _scalar(field)


def _scalar(field: Schema) -> str:
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {field[key]:,}" for key, sign in signs.items() if key in field]
    return f"{names[field['type']]} {', '.join(limits)}".rstrip()


def _resolved(reference: str, schema: Schema) -> Schema:
    return cast("Schema", schema["$defs"][reference.rsplit("/", 1)[1]])


def _first_paragraph(block: Schema) -> str:
    return " ".join(str(block.get("description", "")).split("\n\n")[0].split())


TABLES: Mapping[str, Callable[[], str]] = {
    "accelerator-keys": accelerator_keys,
    "accelerator-presets": accelerator_presets,
    "common-fields": common_fields,
    "dram-keys": dram_keys,
    "dram-sources": dram_sources,
    "dram-standards": dram_standards,
    "workload-fields": workload_fields,
    "workload-presets": workload_presets,
}


def main() -> None:
    """Print one of the tables."""
    print_one(TABLES, __doc__)


if __name__ == "__main__":
    main()
