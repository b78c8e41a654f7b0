"""What a space's points are changes of, as a hash: if it changes, no point can be taken over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tilewright.arch.load import load_accelerator, to_yaml
from tilewright.explore.evaluation.evaluate import Base, BaseWorkload
from tilewright.explore.evaluation.points import WORKLOAD, Axis, Value, digest, hashed
from tilewright.workloads.load import describe_workload, load_workload, preset_names


def base_digest(base: Base, axes: Sequence[Axis]) -> str:
    """Of the resolved accelerator and workloads, and of the files that values name.

    Presets among the values of the parameter `workload` are left out, so that more can be added to a study: a
    point names its own, and what a preset is belongs to the models' version (`points.model_version`).
    """
    parts = [to_yaml(load_accelerator(base.accelerator))]
    for each in base.workloads:
        parts.append(f"{each.label} {each.weight!r}")
        parts += list(each.overrides) if base.choices else _content(each)
    for name, found in sorted(base.choices):
        if found not in preset_names():
            parts += [name, *_content(*base.run_by(name))]
    files = _files(Path(base.accelerator).parent, [axis for axis in axes if axis.key != WORKLOAD])
    return digest("\n".join((*parts, *files)))


def _content(workload: BaseWorkload) -> list[str]:
    graph = load_workload(workload.workload, workload.overrides)
    described = describe_workload(workload.workload, workload.overrides).model_dump_json()
    return [described, repr((graph.operators, sorted(graph.tensors.items()), graph.repeats))]


def _files(folder: Path, axes: Sequence[Axis]) -> list[str]:
    """Names and hashes of the files that values name (a mask, a table of technology), as they are looked for:
    from `folder`, which is the accelerator's, and from here."""
    texts = {text for axis in axes for value in axis.values for text in _texts(value) if Path(text).suffix}
    places = ((text, place) for text in sorted(texts) for place in (folder / text, Path(text)))
    return [f"{text} {hashed(place.read_bytes())}" for text, place in places if place.is_file()]


def _texts(value: Value) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
