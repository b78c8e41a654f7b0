"""Choosing compression techniques, published quality, and search spaces."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Literal

import pytest

from tilewright.cli import execute
from tilewright.description.errors import InputError
from tilewright.workloads.compression import base
from tilewright.workloads.compression.base import Compression, Technique, register
from tilewright.workloads.compression.choice import compressions
from tilewright.workloads.compression.quality import published, table
from tilewright.workloads.compression.spaces import hat_networks, search_space, search_spaces
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import describe_workload, load_workload, to_yaml, workload_schema

KINDS = (
    "adapters, chunked_ffn, lora, prune_ffn, prune_heads, prune_layers, quantise, reversible, share_layers, "
    "sparse_weights"
)


def test_every_technique_says_what_it_is() -> None:
    """Each technique is described: citation, what hardware it needs, and a schema that tells it apart."""
    known = compressions()
    assert ", ".join(known) == KINDS
    for kind, technique in known.items():
        assert technique.technique.model_fields["kind"].default == kind
        assert "arXiv:" in technique.citation
        assert technique.title
        assert technique.changes
        test_file = technique.oracle.partition(":")[0]
        assert (Path(__file__).parent.parent / test_file).is_file()
        assert technique.hardware.endswith(".")


def test_list_prints_every_technique(capsys: pytest.CaptureFixture[str]) -> None:
    """`tilewright list compression`: a row each, with what it changes, its citation and its test."""
    assert execute(["list", "compression", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in rows] == list(compressions())
    assert all(list(row) == ["kind", "title", "changes", "citation", "oracle"] for row in rows)
    assert all(all(row.values()) for row in rows)


def test_techniques_are_applied_in_order() -> None:
    """`compression` is a list; each technique works on what the ones before it left."""
    techniques = (
        "{kind: prune_heads, fraction: 0.5}, {kind: prune_layers, fraction: 0.5}, {kind: lora, rank: 4}"
    )
    graph = load_workload("bert-base", [f"workload.compression=[{techniques}]"])
    heads = 12 * 4 * 768 * 384 + 3 * 12 * 384
    layers = 6 * (7087872 - 4 * 768 * 384 - 3 * 384)
    assert graph.parameters == 109482240 - heads - layers + 6 * 2 * 4 * (768 + 384)


def test_a_description_with_compression_reads_back(tmp_path: Path) -> None:
    """What `to_yaml` writes loads to the same graph."""
    described = describe_workload(
        "gpt2", ["seq=9", "compression=[{kind: quantise, weights: int4, group: 128}]"]
    )
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(described))
    assert describe_workload(str(file)) == described
    assert load_workload(str(file)) == described.graph()


def test_lowering_alone_does_not_compress() -> None:
    """`lower` is the model as it is; `graph` is what runs."""
    described = describe_workload("bert-base", ["compression=[{kind: prune_layers, fraction: 0.5}]"])
    assert described.lower() == describe_workload("bert-base").lower()
    assert described.graph().macs < described.lower().macs


BAD_CHOICES = {
    "[{kind: quantize, weights: int4}]": "unknown compression 'quantize', did you mean 'quantise'? "
    "(tilewright list compression shows them all)",
    "[{kind: quantise}]": "compression.0: quantise: say what: `weights`, `activations`, `kv_cache`, ",
    "[{kind: quantise, weights: int5}]": "weights: must be 'native', 'int4', 'int8', ",
    "[{kind: prune_heads, fraction: 1}]": "fraction: must be less than 1, not 1",
    "[{kind: prune_heads, part: 0.5}]": "part: unknown key 'part'",
    "[{kind: sparse_weights, pattern: n_m, n: 5}]": "`n` (5) of `m` (4) weights can't be kept",
    "[{kind: sparse_weights, pattern: n_m, density: 0.5}]": "sparse_weights: `density` means nothing with "
    "pattern 'n_m'",
}


@pytest.mark.parametrize(("value", "message"), BAD_CHOICES.items())
def test_a_bad_choice_is_explained(value: str, message: str) -> None:
    """A technique that nobody knows, or with sizes that make no sense, is refused with a reason."""
    with pytest.raises(InputError) as caught:
        describe_workload("bert-base", [f"compression={value}"])
    assert message in str(caught.value)


def test_the_schema_knows_every_technique() -> None:
    """Editors are offered the techniques, told apart by `kind`."""
    text = json.dumps(workload_schema())
    assert all(f'"const": "{kind}"' in text for kind in compressions())


def test_anyone_can_register_a_technique(monkeypatch: pytest.MonkeyPatch) -> None:
    """A technique from outside takes the path of the built-in ones; a kind is taken once."""

    class Renamed(Technique):
        kind: Literal["renamed"] = "renamed"

        def transform(self, graph: OperatorGraph) -> OperatorGraph:
            return OperatorGraph(**{**vars(graph), "name": "renamed"})

    monkeypatch.setattr(base.COMPRESSIONS, "_entries", dict(base.COMPRESSIONS.all()))
    mine = register(Compression("renamed", "Renaming", "the name", "nobody", "None.", "none", Renamed))
    assert load_workload("encoder_block", ["compression=[{kind: renamed}]"]).name == "renamed"
    assert register(mine) is mine
    with pytest.raises(ValueError, match=r"^compression kind 'renamed' is taken by Renaming$"):
        register(Compression("renamed", "Another", "the name", "nobody", "None.", "none", Renamed))


def test_published_quality_comes_with_its_split_and_source() -> None:
    """A shipped model bears what was published of it, each split and source on its own."""
    quality = {k: v for k, v in load_workload("distilbert-base").metadata.items() if k.startswith("quality")}
    assert set(quality) == {
        "quality, dev (median of 5), DistilBERT (1910.01108) Table 1-2",
        "quality, dev, DistilBERT (1910.01108) Table 1-2",
        "quality, test, DistilBERT (1910.01108) Table 1-2",
    }
    assert quality["quality, dev, DistilBERT (1910.01108) Table 1-2"] == "SQuAD1.1 77.7/85.8"
    for row in table():
        assert row.split
        assert row.source
        assert row.value


def test_quality_is_of_the_very_model() -> None:
    """Another length or batch is the same model; other sizes, element types or compression are not."""

    def has_quality(*overrides: str) -> bool:
        return any(key.startswith("quality") for key in load_workload("tinybert-4l", overrides).metadata)

    assert has_quality()
    assert has_quality("seq=64", "batch=2")
    assert not has_quality("layers=3")
    assert not has_quality("element=int8")
    assert not has_quality("compression=[{kind: prune_heads, fraction: 0.5}]")


def test_quantised_roberta_has_i_berts_quality() -> None:
    """RoBERTa in 8-bit integers with integer softmax bears I-BERT's values (arXiv:2101.01321, table 2), and
    the plain one those of its 32-bit run."""
    quantised = "compression=[{kind: quantise, activations: int8, weights: int8, softmax: integer}]"
    plain = load_workload("roberta-base").metadata["quality, dev, I-BERT (2101.01321) Table 2"]
    integer = load_workload("roberta-base", [quantised]).metadata["quality, dev, I-BERT (2101.01321) Table 2"]
    assert plain.startswith("MNLI-m 87.8; ")
    assert integer.startswith("MNLI-m 87.5; ")


def test_quality_names_shipped_workloads() -> None:
    """Each row that names a workload names a shipped one, and is found under it."""
    rows = [row for row in table() if row.workload and not row.compression]
    assert rows
    for row in rows:
        assert describe_workload(row.workload).name == row.workload
        assert row in published(row.workload)


def test_search_spaces_have_the_sizes_of_their_papers() -> None:
    """HAT's space holds about 10^15 networks (arXiv:2005.14187, section 3.1), counted layer by layer."""
    layers = 2 * (3 * 2) ** 6, 2 * sum((3 * 2 * 2 * 3) ** depth for depth in range(1, 7))
    assert search_space("hat-wmt").size == layers[0] * layers[1]
    assert 1e14 < search_space("hat-wmt").size < 1e15
    assert search_space("autoformer-tiny").size == 3 * sum((3 * 2) ** depth for depth in (12, 13, 14))


def test_searched_networks_lie_in_their_spaces() -> None:
    """AutoFormer's searched networks choose in each layer what their space offers, in a depth it offers."""
    for space in search_spaces().values():
        if space.searched is None:
            continue
        stack = space.stacks["encoder"]
        for name, chosen in space.searched.items():
            if isinstance(chosen, tuple):
                assert set(chosen) <= set(stack.per_layer[name])
                assert len(chosen) in stack.depth
            else:
                assert chosen in stack.whole[name]


def test_an_unknown_search_space_is_refused() -> None:
    """The error suggests a close name."""
    with pytest.raises(InputError, match=r"^unknown search space 'hat-wtm', did you mean 'hat-wmt'\?"):
        search_space("hat-wtm")


def test_hat_networks_trade_latency_for_quality() -> None:
    """On each task and device a slower network that HAT found is a better one."""
    found = hat_networks()
    assert len(found) == 44
    groups = {(each.task, each.hardware) for each in found}
    for task, hardware in groups:
        points = sorted((e.latency_s, e.bleu) for e in found if (e.task, e.hardware) == (task, hardware))
        assert [bleu for _, bleu in points] == sorted(bleu for _, bleu in points)


def test_the_tables_hold_no_empty_cells_where_it_matters() -> None:
    """Both data files parse, with a source in every row."""
    folder = Path(base.__file__).parent
    for name in ("quality.csv", "hat_latency.csv"):
        with (folder / name).open() as stream:
            assert all(row["source"] for row in csv.DictReader(stream))
