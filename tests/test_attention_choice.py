"""Choosing an attention mechanism by its kind: how kinds are found, read, explained and offered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import MECHANISMS
from tilewright.workloads.attention.choice import FIELD, mechanisms
from tilewright.workloads.load import describe_workload, load_workload, to_yaml, workload_schema
from tilewright.workloads.registry import Registry

PACKAGE = '''
from typing import Literal

from tilewright.workloads.attention.base import Mechanism, Parameters
from tilewright.workloads.attention.sublayer import output
from tilewright.workloads.description import Size


class Averaging(Parameters):
    """Every token gets the mean of all values, some times over."""

    kind: Literal["averaging"] = "averaging"
    times: Size = 1


def lower(b, x, site, p):
    value = b.linear("value", x, site.heads.kv_width)
    for number in range(p.times):
        mean = b.reduce(f"mean{number}", "mean", value, (x.shape[0], 1, value.shape[-1]))
        value = b.elementwise(f"add{number}", "add", value, mean)
    return output(b, value, x, site)


MECHANISM = Mechanism("averaging", "Averaging", ("low rank",), "O(N)", "nobody", "none", Averaging, lower)
'''


def install(folder: Path, points: str, code: str = PACKAGE) -> None:
    """What an installed distribution leaves on the path: a module, and metadata with entry points."""
    info = folder / "averaging-1.0.dist-info"
    info.mkdir()
    (folder / "averaging_attention.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: averaging\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tilewright.attention]\n{points}\n")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder at the front of the path; what is registered from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(MECHANISMS, "_entries", dict(MECHANISMS.all()))
    monkeypatch.delitem(sys.modules, "averaging_attention", raising=False)
    yield tmp_path
    sys.modules.pop("averaging_attention", None)


def test_an_installed_package_adds_a_mechanism(outside: Path) -> None:
    """A mechanism behind an entry point is found by its kind, has parameters and overrides like the built-in
    ones, and may stand in a list of layers."""
    install(outside, "averaging = averaging_attention:MECHANISM")
    graph = load_workload("bert-base", ["seq=16", "attention.kind=averaging", "attention.times=2"])
    assert sum(op.kind == "reduce" for op in graph.operators) == 2
    mixed = load_workload(
        "bert-base",
        ["seq=16", "attention={kind: per_layer, layers: [{kind: averaging}, {kind: dense}]}"],
    )
    assert [graph.times for graph in mixed.repeats] == [6]
    assert '"averaging"' in json.dumps(workload_schema())
    with pytest.raises(InputError, match=r"attention\.time: unknown key 'time', did you mean 'times'"):
        describe_workload("bert-base", ["attention={kind: averaging, time: 2}"])


def test_the_command_line_runs_a_mechanism_from_outside(tmp_path: Path) -> None:
    """`run`, `show` and `list attention` know an installed mechanism with nothing said but its kind."""
    install(tmp_path, "averaging = averaging_attention:MECHANISM")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def tilewright(*arguments: str) -> str:
        command = [sys.executable, "-m", "tilewright", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run = ("run", "gemmini-default", "encoder_block", "workload.attention.kind=averaging")
    result = json.loads(tilewright(*run, "workload.seq=16", "--format", "json"))
    assert "attention.mean0" in {each["name"] for each in result["operators"]}
    assert "averaging" in tilewright("list", "attention")


BROKEN = {
    "averaging = averaging_attention:MISSING": "AttributeError",
    "averaging = no_such_module:MECHANISM": "No module named 'no_such_module'",
    "averaging = averaging_attention:lower": "AttributeError: 'function' object has no attribute 'kind'",
}


@pytest.mark.parametrize(("points", "reason"), BROKEN.items())
def test_a_broken_entry_point_is_named(outside: Path, points: str, reason: str) -> None:
    """An entry point that can't be loaded is reported with its group and reason, not as a traceback."""
    install(outside, points)
    with pytest.raises(InputError) as caught:
        describe_workload("bert-base", ["attention.kind=averaging"])
    assert "entry point 'averaging' of group 'tilewright.attention'" in str(caught.value)
    assert reason in str(caught.value)


def test_a_kind_is_taken_once(outside: Path) -> None:
    """A package can't put its own mechanism in the place of a built-in one."""
    install(outside, "mine = averaging_attention:MECHANISM", PACKAGE.replace('"averaging"', '"dense"'))
    with pytest.raises(InputError, match="attention kind 'dense' is taken by Dense attention"):
        mechanisms()


def test_naming_a_kind_imports_its_module_alone() -> None:
    """Start-up: reading a description imports neither numpy nor any mechanism, reading one that names
    linformer, by an override, that module and no other."""
    code = """
import sys
from tilewright.workloads.load import describe_workload
from tilewright.workloads.attention.choice import MECHANISMS
describe_workload("bert-base", ["seq=64"])
assert "numpy" not in sys.modules
assert not MECHANISMS._entries
describe_workload("bert-base", ["attention.kind=linformer", "attention.k=8"])
assert list(MECHANISMS._entries) == ["linformer"], list(MECHANISMS._entries)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_built_in_kind_is_called_as_its_module() -> None:
    """A kind alone is enough to find its module, in a registry that knows nothing yet."""
    fresh: Registry[object] = Registry("attention", "tilewright.workloads.attention")  # type: ignore[type-var]
    modules = set(fresh._modules())
    assert set(mechanisms()) <= modules


BAD_CHOICES = {
    "longformer": "attention: must be a mapping with a `kind`, not 'longformer'",
    "{window: 3}": "attention: needs a `kind`, one of axial, bigbird, ",
    "{kind: longformr}": "attention: unknown attention 'longformr', did you mean 'longformer'?",
    "{kind: longformer, windw: 4}": "attention.windw: unknown key 'windw', did you mean 'window'?",
    "{kind: longformer, window: 3}": "attention.window: must be a multiple of 2, not 3",
    "{kind: longformer, window: true}": "attention.window: must be",
    "{kind: longformer, dilation: 2, global_tokens: 1}": "attention: `global_tokens` must be 0 where "
    "`dilation` is above 1",
    "{kind: per_layer, layers: []}": "attention.layers: must name at least one mechanism",
    "{kind: per_layer, layers: [{kind: dense, count: 0}]}": "attention.layers.0.count: must be greater "
    "than 0, not 0",
    "{kind: per_layer, layers: [{kind: per_layer}]}": "attention.layers.0: a layer has one mechanism or "
    "`per_head`, not `per_layer` again",
    "{kind: per_layer, layers: [{kind: topk, blok: 8}]}": "attention.layers.0.blok: unknown key 'blok', did "
    "you mean 'block'?",
    "{kind: per_head, groups: [{kind: dense}]}": "attention.groups.0.heads: required key is missing",
    "{kind: per_head, groups: [{kind: per_layer, heads: 12}]}": "attention.groups.0: a group of heads has "
    "one mechanism, not `per_layer`",
}


@pytest.mark.parametrize(("value", "message"), BAD_CHOICES.items())
def test_a_bad_choice_is_explained(value: str, message: str) -> None:
    """What can't be read is refused with its place, the offending value and what was expected."""
    with pytest.raises(InputError) as caught:
        describe_workload("bert-base", [f"attention={value}"])
    assert message in str(caught.value)


MISFITS = {
    ("gpt2", "linformer"): "attention.kind: linformer can't be causal, as this model's attention is; "
    "Linformer looks at the whole sequence",
    ("bert-base", "h2o"): "attention.kind: h2o is causal, this model's attention looks both ways",
    ("gpt2 phase=decode", "reformer"): "attention.kind: reformer has no decode step (no way to take one "
    "token against a cache)",
    ("t5-small", "performer"): "attention.kind: performer can't take this model's bias of each score by "
    "relative position; those with a `position_bias` can: dense, sliding_window",
    ("qwen3-8b", "mla"): "attention.kind: mla makes queries and keys in its own way, which leaves out this "
    "model's norms on them (`qk_norm`)",
    ("mobilebert", "dense"): "attention: this model makes its values of another input than queries and "
    "keys, which no mechanism does; set `narrow_values` (MobileBERT-tiny), or leave `attention` out",
}


@pytest.mark.parametrize(("where", "message"), MISFITS.items())
def test_a_mechanism_that_does_not_fit_says_why(where: tuple[str, str], message: str) -> None:
    """A mechanism that makes no sense in a model is refused with the reason."""
    (name, *overrides), kind = where[0].split(), where[1]
    with pytest.raises(InputError) as caught:
        load_workload(name, [*overrides, f"attention.kind={kind}"])
    assert str(caught.value) == message


NESTED = (
    "attention={kind: per_layer, layers: [{kind: per_head, count: 3, groups: [{kind: routing, heads: 4},"
    " {kind: sliding_window, heads: 8}]}, {kind: longformer, window: 64}]}"
)


def test_a_choice_is_shown_with_its_defaults_and_reads_back(tmp_path: Path) -> None:
    """What `show` prints has every parameter and describes the same workload."""
    described = describe_workload("bert-base", [NESTED, "seq=32"])
    text = to_yaml(described)
    assert "  - kind: longformer\n    block: 64\n    window: 64\n    dilation: 1\n" in text
    (tmp_path / "shown.yaml").write_text(text)
    again = describe_workload(tmp_path / "shown.yaml")
    assert again == described
    assert again.graph().operators == described.graph().operators


def test_overrides_reach_into_a_list_of_layers() -> None:
    """A key of one entry can be set, and its kind changed, without writing out the others."""
    overrides = [NESTED, "attention.layers.1.window=128", "attention.layers.0.groups.1.window=8"]
    chosen = describe_workload("bert-base", overrides).model_dump()["attention"]["layers"]
    assert chosen[1]["window"] == 128
    assert chosen[0]["groups"][1]["window"] == 8
    changed = describe_workload("bert-base", [NESTED, "attention.layers.1.kind=bigbird"])
    assert changed.model_dump()["attention"]["layers"][1]["kind"] == "bigbird"
    with pytest.raises(InputError, match=r"did you mean workload\.attention\.layers\.1\.window"):
        describe_workload("bert-base", [NESTED, "attention.layers.1.windw=128"])


def test_the_schema_knows_every_choice() -> None:
    """Editors are offered each mechanism with its parameters, alone, in a list of layers and in a group."""
    schema = workload_schema()
    kinds = set(mechanisms())
    for name, more in (
        ("attention", {"per_layer", "per_head"}),
        ("attention.layer", {"per_head"}),
        ("attention.group", set()),
    ):
        mapping = schema["$defs"][name]["discriminator"]["mapping"]
        assert set(mapping) == kinds | more
        for reference in mapping.values():
            assert reference.removeprefix("#/$defs/") in schema["$defs"]
    assert "count" in schema["$defs"]["attention.layer.longformer"]["properties"]
    assert "heads" in schema["$defs"]["attention.group.longformer"]["required"]
    text = json.dumps(schema)
    assert "x-open-block" not in text
    references = set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', text))
    assert references <= set(schema["$defs"])


def test_an_instance_is_a_choice_too() -> None:
    """A description made in Python may be given a mechanism's parameters as they are."""
    parameters = mechanisms()["linformer"].parameters()
    assert FIELD.parse(parameters) == parameters


@pytest.mark.parametrize("kind", sorted(mechanisms()))
def test_every_mechanism_stands_in_the_bare_block(kind: str, tmp_path: Path) -> None:
    """`encoder_block` takes each by its name alone, causal where the mechanism can't look both ways."""
    np.save(tmp_path / "mask.npy", np.tri(1024, dtype=bool))
    needs = [f"attention.path={tmp_path / 'mask.npy'}"] if kind == "mask_file" else []
    graph = tw.load_workload("encoder_block", ["seq=1024", f"attention.kind={kind}", *needs])
    assert graph.macs > 0
    if not mechanisms()[kind].encode:
        causal = tw.load_workload(
            "encoder_block", ["seq=1024", "causal=true", f"attention.kind={kind}", *needs]
        )
        assert graph == causal
        with pytest.raises(InputError, match="looks both ways"):
            tw.load_workload("encoder_block", ["seq=1024", "causal=false", f"attention.kind={kind}"])
