"""Whole models: what their lowered graphs compute, against Hugging Face Transformers' with the same weights.

LLaMA has grouped queries, ALBERT shares its layers, DistilBERT is a distilled student.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers

from tilewright.sim import functional, numerics
from tilewright.workloads.description import Model
from tilewright.workloads.families.albert import Albert
from tilewright.workloads.families.bert import Bert
from tilewright.workloads.families.distilbert import DistilBert
from tilewright.workloads.families.gpt2 import Gpt2
from tilewright.workloads.families.llama import Llama

Arrays = dict[str, np.ndarray]
LAYERS, D, HEADS, KV_HEADS, FFN, VOCAB, POSITIONS, BATCH, TOKENS = 3, 8, 4, 2, 12, 11, 9, 2, 7


class Case(NamedTuple):
    """A model of ours and of theirs; `names` are replaced, in order, in the names of their weights."""

    ours: Model
    theirs: Callable[[], torch.nn.Module]
    names: Mapping[str, str]
    tolerance: float


SIZES: dict[str, Any] = {"layers": LAYERS, "d": D, "heads": HEADS, "ffn": FFN, "vocab": VOCAB}
SIZES |= {"seq": TOKENS, "batch": BATCH}
BERT: dict[str, Any] = {
    "num_hidden_layers": LAYERS,
    "hidden_size": D,
    "num_attention_heads": HEADS,
    "intermediate_size": FFN,
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
    "hidden_act": "gelu",
}
EMBEDDINGS = {r"(word|position|token_type)_embeddings": r"\1", "token_type": "segment"}


def bert() -> torch.nn.Module:
    return transformers.BertModel(transformers.BertConfig(**BERT))


def albert() -> torch.nn.Module:
    return transformers.AlbertModel(transformers.AlbertConfig(**BERT, embedding_size=4))


def distilbert() -> torch.nn.Module:
    return transformers.DistilBertModel(
        transformers.DistilBertConfig(
            VOCAB, POSITIONS, n_layers=LAYERS, n_heads=HEADS, dim=D, hidden_dim=FFN, activation="gelu"
        )
    )


def gpt2() -> torch.nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(VOCAB, POSITIONS, n_embd=D, n_layer=LAYERS, n_head=HEADS, n_inner=FFN)
    )


def llama() -> torch.nn.Module:
    sizes = {name: BERT[name] for name in BERT if name != "hidden_act"}
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**sizes, num_key_value_heads=KV_HEADS, tie_word_embeddings=False)
    )


CASES = {
    "bert": Case(
        Bert(**SIZES, positions=POSITIONS),
        bert,
        {
            **EMBEDDINGS,
            r"encoder\.layer\.": "layers.",
            r"attention\.self": "attention",
            r"attention\.output\.dense": "attention.output",
            r"attention\.output\.LayerNorm": "attention_norm",
            r"intermediate\.dense": "ffn.up",
            r"(\d)\.output\.dense": r"\1.ffn.down",
            r"output\.LayerNorm": "ffn_norm",
            "LayerNorm": "norm",
        },
        1e-11,
    ),
    "albert": Case(
        Albert(**SIZES, positions=POSITIONS, embedding=4, act="gelu"),
        albert,
        {
            **EMBEDDINGS,
            r"encoder\.embedding_hidden_mapping_in": "embeddings_project",
            r"encoder\.albert_layer_groups\.0\.albert_layers\.0": "group0",
            r"attention\.dense": "attention.output",
            r"attention\.LayerNorm": "attention_norm",
            "full_layer_layer_norm": "ffn_norm",
            r"ffn\.": "ffn.up.",
            "ffn_output": "ffn.down",
            r"pooler\.": "pooler.dense.",
            "LayerNorm": "norm",
        },
        1e-11,
    ),
    "distilbert": Case(
        DistilBert(**SIZES, positions=POSITIONS),
        distilbert,
        {
            **EMBEDDINGS,
            r"transformer\.layer": "layers",
            "sa_layer_norm": "attention_norm",
            "output_layer_norm": "ffn_norm",
            "q_lin": "query",
            "k_lin": "key",
            "v_lin": "value",
            "out_lin": "output",
            "lin1": "up",
            "lin2": "down",
            "LayerNorm": "norm",
        },
        1e-11,
    ),
    "gpt2": Case(
        Gpt2(**SIZES, positions=POSITIONS),
        gpt2,
        {
            r"transformer\.h\.": "layers.",
            r"transformer\.": "",
            "wte": "embeddings.word",
            "wpe": "embeddings.position",
            "ln_1": "attention_norm",
            "ln_2": "ffn_norm",
            "ln_f": "norm",
            r"attn\.c_proj": "attention.output",
            r"attn\.c_attn": "attention.qkv",
            r"mlp\.c_fc": "ffn.up",
            r"mlp\.c_proj": "ffn.down",
        },
        1e-11,
    ),
    "llama": Case(
        Llama(**SIZES, kv_heads=KV_HEADS),
        llama,
        {
            r"model\.": "",
            "embed_tokens": "embeddings.word",
            "self_attn": "attention",
            "post_attention_layernorm": "ffn_norm",
            "input_layernorm": "attention_norm",
            "q_proj": "query",
            "k_proj": "key",
            "v_proj": "value",
            "o_proj": "output",
            "mlp": "ffn",
            "_proj": "",
        },
        5e-6,  # its norms and softmax are in float32
    ),
}


def their_weights(model: torch.nn.Module, names: Mapping[str, str]) -> Arrays:
    """By our names; a dense layer's is [in, out]."""
    weights: Arrays = {}
    modules = dict(model.named_modules())
    for theirs, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        if isinstance(modules[theirs.rpartition(".")[0]], torch.nn.Linear):
            array = array.T
        name = theirs
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        if ".qkv." in name:
            for part, each in zip(("query", "key", "value"), np.split(array, 3, axis=-1), strict=True):
                weights[name.replace("qkv", part)] = each
        else:
            weights[name] = array
    return weights


def prepared(case: Case) -> torch.nn.Module:
    """Their model in float64 with random weights, no dropout, and our epsilon."""
    torch.manual_seed(5)
    model = case.theirs().double().eval()
    for module in model.modules():
        for name in ("eps", "variance_epsilon"):
            if hasattr(module, name):
                setattr(module, name, numerics.NORM_EPSILON)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


@pytest.mark.parametrize("name", CASES)
def test_the_graph_computes_the_model(name: str) -> None:
    """Hidden states and pooled output, or logits, are theirs, and so is every weight's shape."""
    case = CASES[name]
    model = prepared(case)
    tokens = torch.randint(0, VOCAB, (BATCH, TOKENS))
    graph = case.ours.lower()
    inputs = functional.random_inputs(graph, seed=0)
    weights = their_weights(model, case.names)
    rest = {key: inputs[key] for key in inputs if key not in weights}
    assert {key: inputs[key].shape for key in inputs if key in weights} == {
        key: array.shape for key, array in weights.items()
    }
    assert set(rest) <= {"tokens", "segments", "angles"}
    given = {
        "tokens": tokens.numpy(),
        "segments": np.zeros((BATCH, TOKENS), int),
        "angles": angles(D // HEADS),
    }
    with torch.no_grad():
        theirs = model(tokens)
    values = functional.run(graph, weights | {key: given[key] for key in rest})
    expected = [theirs.logits if hasattr(theirs, "logits") else theirs.last_hidden_state]
    if "pooler_output" in theirs:
        expected.append(theirs.pooler_output[:, None])
    for output, wanted in zip(graph.expand().outputs, expected, strict=True):
        np.testing.assert_allclose(values[output].reshape(wanted.shape), wanted, rtol=0, atol=case.tolerance)


def angles(width: int) -> np.ndarray:
    """Rotary angles [tokens, width] of LLaMA, both halves alike."""
    frequencies = 10000.0 ** (-np.arange(0, width, 2) / width)
    return np.tile(np.arange(TOKENS)[:, None] * frequencies, 2)
