"""Reading workloads: presets, YAML, config.json, topologies, overrides, and every way that goes wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tilewright.description.errors import InputError
from tilewright.workloads.load import (
    describe_workload,
    load_workload,
    preset_names,
    preset_text,
    to_yaml,
    workload_schema,
)
from tilewright.workloads.operators import MatmulShape

Write = Callable[[str, object], str]
ROOT = Path(__file__).parents[1]
CONFIGS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "hugging_face_configs.json").read_text(encoding="utf-8")
)
BERT: dict[str, Any] = CONFIGS[0]["config"]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the (temporary) working directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def put(name: str, content: object) -> str:
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        Path(name).write_text(text, encoding="utf-8")
        return name

    return put


def error(name: str, *overrides: str) -> str:
    """The message of loading a workload that can't be loaded."""
    with pytest.raises(InputError) as caught:
        load_workload(name, overrides)
    return str(caught.value)


@pytest.mark.parametrize("entry", CONFIGS, ids=lambda entry: f"{entry['preset']} {entry['dialect']}")
def test_config_json_equals_the_preset(entry: dict[str, Any], write: Write) -> None:
    """The config.json of a checkpoint, in either dialect, gives the very graph of its preset."""
    graph = load_workload(write("config.json", entry["config"]))
    preset = load_workload(entry["preset"])
    assert graph.operators == preset.operators
    assert graph.tensors == preset.tensors
    assert (graph.inputs, graph.outputs, graph.repeats) == (preset.inputs, preset.outputs, preset.repeats)


def test_every_family_of_config_json_is_read_in_both_dialects() -> None:
    """The configs tested cover both dialects of every family that has two."""
    dialects: dict[str, set[str]] = {}
    for entry in CONFIGS:
        dialects.setdefault(entry["config"]["model_type"], set()).add(entry["dialect"])
    single = {"electra", "roberta", "deit", "mobilebert", "qwen2_moe"}
    assert {kind for kind, known in dialects.items() if known != {"older", "5.x"}} == single


def test_config_json_takes_overrides_and_a_folder(write: Write, tmp_path: Path) -> None:
    """A checkpoint's folder will do for its config.json; overrides, prefixed or not, are put in."""
    write("config.json", BERT)
    model = describe_workload(str(tmp_path), ["workload.seq=77", "batch=2"])
    assert model == describe_workload("bert-base", ["seq=77", "batch=2", "name=bert"])


def test_class_count_of_a_vision_config(write: Write) -> None:
    """The classifier has a column per label of the config; without labels two, as transformers builds it."""
    vit = {
        k: v for e in CONFIGS if e["preset"] == "vit-b16" for k, v in e["config"].items() if k != "num_labels"
    }
    assert describe_workload(write("config.json", vit)).model_dump()["classes"] == 2
    vit["id2label"] = {str(i): f"label {i}" for i in range(10)}
    assert describe_workload(write("config.json", vit)).model_dump()["classes"] == 10


def test_name_of_a_config(write: Write) -> None:
    """A config that says where it comes from gives its name to the workload."""
    assert load_workload(write("config.json", BERT | {"_name_or_path": "me/my-bert"})).name == "my-bert"
    assert load_workload(write("config.json", BERT)).name == "bert"


KNOWN = (
    "albert, bert, deit, distilbert, electra, gpt2, llama, mistral, mixtral, mobilebert, qwen2, qwen2_moe, "
    "qwen3, qwen3_moe, roberta, t5, vit, whisper, xlm-roberta"
)
BAD_CONFIGS = [
    ({"hidden_size": None}, "c.json: field 'hidden_size' is missing; a config of model_type 'bert' needs it"),
    ({"model_type": None}, "c.json: field 'model_type' is missing: this is no Hugging Face config.json"),
    (
        {"model_type": "brt"},
        f"c.json: unknown model_type 'brt', did you mean 'bert'? (supported: {KNOWN})",
    ),
    ({"model_type": "mamba2"}, f"c.json: unknown model_type 'mamba2' (supported: {KNOWN})"),
    ({"hidden_size": "768"}, "c.json: field 'hidden_size' must be a whole number, not \"768\""),
    ({"hidden_size": 7.5}, "c.json: field 'hidden_size' must be a whole number, not 7.5"),
    (
        {"hidden_act": "gelu_neu"},
        "c.json: field 'hidden_act': unknown activation 'gelu_neu', did you mean 'gelu_new'?",
    ),
    ({"is_decoder": True}, "c.json: field 'is_decoder' is true: only the encoder is modelled"),
    ({"num_attention_heads": 7}, "c.json: heads: must divide `d` (768), which 7 does not"),
    ({"num_hidden_layers": -1}, "c.json: field 'num_hidden_layers' must be at least 1, not -1"),
]


@pytest.mark.parametrize(("change", "message"), BAD_CONFIGS)
def test_a_bad_config_is_told_in_one_line(change: dict[str, Any], message: str, write: Write) -> None:
    """A config.json that lacks a needed field, or holds a wrong one, is named with field and reason."""
    assert error(write("c.json", BERT | change)) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_sliding_window": True}, "sliding windows on some of the layers are not modelled"),
        (
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "'partial_rotary_factor' is 0.5: only 1 is modelled",
        ),
        ({"partial_rotary_factor": 0.25}, "'partial_rotary_factor' is 0.25: only 1 is modelled"),
        ({"tie_word_embeddings": "yes"}, "'tie_word_embeddings' must be true or false, not 'yes'"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(change: dict[str, Any], message: str, write: Write) -> None:
    """What a model does and tilewright does not is an error, never silently left out."""
    qwen = next(e["config"] for e in CONFIGS if e["preset"] == "qwen2-7b")
    assert message in error(write("c.json", qwen | change))


def test_sparse_layers_are_refused(write: Write) -> None:
    """Experts on every second layer only are an error."""
    moe = next(e["config"] for e in CONFIGS if e["preset"] == "qwen1.5-moe-a2.7b")
    text = error(write("c.json", moe | {"decoder_sparse_step": 2}))
    assert text == (
        "c.json: field 'decoder_sparse_step' is 2: experts on some of the layers only are not modelled"
    )


def test_a_truncated_config_is_located(write: Write) -> None:
    """JSON that ends too early is reported with line and column."""
    text = json.dumps({"model_type": "bert", "vocab_size": 30522}, indent=1)
    message = error(write("c.json", text[: text.index(":", 20) + 1]))
    assert message.startswith("c.json:3:15: not valid JSON (cut short?): ")
    assert error(write("c.json", "")) == "c.json: the file is empty"
    assert error(write("c.json", "[1]")) == "c.json: must hold a JSON object"
    assert error(write("c.json", "[" * 100_000)).startswith("c.json")


def test_t5_kinds(write: Write) -> None:
    """T5 1.1's `gated-gelu` is a gated network with the tanh form of GELU; an unknown kind is refused."""
    t5 = next(e["config"] for e in CONFIGS if e["preset"] == "t5-small")
    model = describe_workload(write("c.json", t5 | {"feed_forward_proj": "gated-gelu"})).model_dump()
    assert (model["gated"], model["act"]) == (True, "gelu_new")
    assert error(write("c.json", t5 | {"feed_forward_proj": "gated-what"})) == (
        "c.json: field 'feed_forward_proj': unknown kind 'gated-what'"
    )


@pytest.mark.parametrize("name", preset_names())
def test_presets_say_where_they_come_from_and_load_back(name: str) -> None:
    """Every preset bears its file's name and a source, and its resolved YAML loads back to the same."""
    lines = preset_text(name).splitlines()
    assert lines[0] == "# yaml-language-server: $schema=../../docs/schema/workload.schema.json"
    assert lines[1].startswith("# ")
    model = describe_workload(name)
    assert model.title == name
    assert name in to_yaml(model).splitlines()[0]


@pytest.mark.parametrize("name", ["bert-base", "llama-3-8b", "mixtral-8x7b", "whisper-tiny", "gemm"])
def test_resolved_yaml_loads_back(name: str, write: Write) -> None:
    """What --print-config prints is the same workload again, overrides included."""
    model = describe_workload(name, ["element=int8"])
    assert describe_workload(write("again.yaml", to_yaml(model))) == model


def test_the_schema_for_editors_is_up_to_date() -> None:
    """docs/schema/workload.schema.json is what `tilewright schema workload` prints."""
    stored = json.loads((ROOT / "docs" / "schema" / "workload.schema.json").read_text(encoding="utf-8"))
    assert stored == workload_schema()


def test_gemm_topology(write: Write) -> None:
    """Each row of a SCALE-Sim GEMM topology (Layer, M, N, K) is one product, names made to differ."""
    text = "Layer, M, N, K,\nquery, 512, 768, 64,\n\nquery, 16, 8, 4,\nlast,1,2,3\n"
    graph = load_workload(write("layers.csv", text))
    assert [op.name for op in graph.operators] == ["query", "query_2", "last"]
    assert [op.shape for op in graph.operators] == [
        MatmulShape(1, 512, 64, 768),
        MatmulShape(1, 16, 4, 8),
        MatmulShape(1, 1, 3, 2),
    ]
    assert graph.name == "layers"
    assert load_workload("layers.csv", ["element=int8"]).tensors["last.a"].element == "int8"


def test_convolution_topology(write: Write) -> None:
    """ResNet-50's first layer (224 x 224 x 3, 64 filters of 7 x 7, stride 2) as SCALE-Sim unfolds it."""
    header = (
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
    )
    graph = load_workload(write("conv.csv", f"{header}\nConv1, 224, 224, 7, 7, 3, 64, 2,\n"))
    assert graph.operators[0].shape == MatmulShape(1, 110 * 110, 147, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Layer, M, N, K,\nq, 1, 2,\n", "t.csv:2:1: layer 'q' has 2 of 3 sizes\n    q, 1, 2\n    ^"),
        (
            "Layer, M, N, K,\nq, 1, x, 3\n",
            "t.csv:2:1: N must be a whole number, not 'x'\n    q, 1, x, 3\n    ^",
        ),
        (
            "Layer, M, N, K,\nq, 1, 0, 3\n",
            "t.csv:2:1: N must be greater than 0, not 0\n    q, 1, 0, 3\n    ^",
        ),
        ("Layer, M, N, K,\n", "t.csv: holds a header, but no layer"),
        (",\n,\n", "t.csv: holds no header line"),
        ("Layer, M, N, K,\n{i}, 1, 2, 3\n", "t.csv: gemms.0.name: a name can't hold braces"),
        (
            "Layer, M, N, K,\nq, 1, 2, 3\nq.a, 1, 2, 3\n",
            "t.csv: gemms: the name 'q.a' is taken; operands are called NAME.a and NAME.b",
        ),
        (
            "a, b\n1, 2\n",
            "t.csv:1:1: no SCALE-Sim topology: its header must be `Layer, M, N, K,` or "
            "`Layer name, IFMAP Height, …`\n    a, b\n    ^",
        ),
    ],
)
def test_a_bad_topology_is_located(text: str, message: str, write: Write) -> None:
    """What is wrong with a topology is told with its line."""
    assert error(write("t.csv", text)) == message


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "bert-bas",
            (),
            "unknown workload 'bert-bas', did you mean 'bert-base'? (tilewright list workloads shows"
            " them all); it is no file either",
        ),
        ("", (), "unknown workload '' (tilewright list workloads shows them all); it is no file either"),
        ("none.yaml", (), "none.yaml: no such file"),
        ("none.json", (), "none.json: no such file"),
        ("folder/none", (), "folder/none: no such file"),
        ("m.onnx", (), "m.onnx: no such file"),
        (
            "bert-base",
            ("seq=513",),
            "command line: seq: 513 tokens exceed the model's 512 learned `positions`"
            "\n    seq=513\n        ^",
        ),
        (
            "gpt2",
            ("seq=1024", "generate=3"),
            "command line: seq: 1024 tokens and 2 generated ones exceed the model's 1024 learned `positions`"
            "\n    seq=1024\n        ^",
        ),
        (
            "gpt2",
            ("phase=decode", "generate=3"),
            "command line: generate: generation starts with a prefill: leave `phase` out, or set `generate`"
            " to 0\n    generate=3\n             ^",
        ),
        (
            "whisper-tiny",
            ("target_seq=449",),
            "command line: target_seq: 449 tokens exceed the model's 448 learned `target_positions`"
            "\n    target_seq=449\n               ^",
        ),
        (
            "llama-2-7b",
            ("workload.kv_heads=5",),
            "command line: kv_heads: must divide `heads` (32), which 5 does not"
            "\n    workload.kv_heads=5\n                      ^",
        ),
        (
            "mixtral-8x7b",
            ("active_experts=9",),
            "command line: active_experts: must not exceed `experts` (8), which 9 does"
            "\n    active_experts=9\n                   ^",
        ),
        (
            "attention",
            ("mask=causal", "kv_seq=3"),
            "command line: mask: a causal mask needs `kv_seq` (3) to be at least `seq` (512)"
            "\n    mask=causal\n         ^",
        ),
        ("gemm", ("m=0",), "command line: m: must be greater than 0, not 0\n    m=0\n      ^"),
        (
            "gemm",
            ("m=9999999999",),
            "command line: m: must be less than 2147483648, not 9999999999\n    m=9999999999\n      ^",
        ),
        (
            "bert-base",
            ("workload.sequ=5",),
            "command line: unknown key workload.sequ, did you mean workload.seq?"
            "\n    workload.sequ=5\n             ^",
        ),
    ],
)
def test_errors_say_what_is_wrong_and_where(name: str, overrides: tuple[str, ...], message: str) -> None:
    """A name that is nothing, and overrides that don't fit, are told in full."""
    assert error(name, *overrides) == message


def test_all_mistakes_of_a_yaml_file_at_once(write: Write) -> None:
    """A workload's YAML file is reported like an accelerator's: every mistake, with its place."""
    text = error(write("w.yaml", "family: distilbert\nlayers: 0\nd: 8\nheads: 3\nfnn: 16\n"))
    heads = [line for line in text.splitlines() if line.startswith("w.yaml")]
    assert [re.sub(r"(did you mean.*)", "…", head) for head in heads] == [
        "w.yaml:1:1: vocab: required key is missing",
        "w.yaml:2:9: layers: must be greater than 0, not 0",
        "w.yaml:4:8: heads: must divide `d` (8), which 3 does not",
        "w.yaml:5:1: fnn: unknown key 'fnn', …",
    ]
    assert "'bert'" in error(write("w.yaml", "family: brt\n"))


def test_rotary_heads_have_even_width() -> None:
    """Rotary positions turn pairs: an odd head width is refused, and so is a width that can't be guessed."""
    assert "heads of even width, not 5" in error("llama-2-7b", "head_dim=5")
    assert "is needed where `d` (10) is no multiple of `heads` (32)" in error(
        "llama-2-7b", "head_dim=null", "d=10"
    )
