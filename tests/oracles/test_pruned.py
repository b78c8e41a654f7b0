"""Pruned models: what their graphs compute, against BERT in Hugging Face Transformers without the same parts.

The weights are theirs after pruning, so that shapes that differed would be found as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers
from transformers.pytorch_utils import prune_linear_layer

from tilewright.sim import functional, numerics
from tilewright.workloads.compression.base import Technique
from tilewright.workloads.compression.prune_ffn import PruneFfn
from tilewright.workloads.compression.prune_heads import PruneHeads
from tilewright.workloads.compression.prune_layers import PruneLayers
from tilewright.workloads.families.bert import Bert

LAYERS, D, HEADS, FFN, VOCAB, TOKENS = 4, 12, 4, 10, 11, 7
NAMES = {
    r"(word|position|token_type)_embeddings": r"\1",
    "token_type": "segment",
    r"encoder\.layer\.": "layers.",
    r"attention\.self": "attention",
    r"attention\.output\.dense": "attention.output",
    r"attention\.output\.LayerNorm": "attention_norm",
    r"intermediate\.dense": "ffn.up",
    r"(\d)\.output\.dense": r"\1.ffn.down",
    r"output\.LayerNorm": "ffn_norm",
    "LayerNorm": "norm",
}


def bert() -> transformers.BertModel:
    """In float64 with random weights, no dropout, our epsilon."""
    torch.manual_seed(7)
    config = transformers.BertConfig(
        VOCAB, D, LAYERS, HEADS, FFN, max_position_embeddings=9, attn_implementation="eager"
    )
    model = transformers.BertModel(config, add_pooling_layer=False).double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = numerics.NORM_EPSILON
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def without_heads(model: transformers.BertModel) -> None:
    """Another pair of heads gone from each layer."""
    model.prune_heads({layer: [layer % HEADS, (layer + 1) % HEADS] for layer in range(LAYERS)})


def without_columns(model: transformers.BertModel) -> None:
    """3 of the 10 columns of each network gone."""
    for number, layer in enumerate(model.encoder.layer):
        kept = torch.tensor([i for i in range(FFN) if (i + number) % 3 or i > 8])[: FFN - 3]
        layer.intermediate.dense = prune_linear_layer(layer.intermediate.dense, kept)
        layer.output.dense = prune_linear_layer(layer.output.dense, kept, dim=1)


def without_layers(model: transformers.BertModel) -> None:
    """Every other layer gone."""
    model.encoder.layer = model.encoder.layer[::2]


CASES: dict[str, tuple[Technique, Callable[[transformers.BertModel], None]]] = {
    "heads": (PruneHeads(fraction=0.5), without_heads),
    "columns": (PruneFfn(fraction=0.3), without_columns),
    "layers": (PruneLayers(fraction=0.5), without_layers),
}


def weights(model: transformers.BertModel) -> dict[str, np.ndarray]:
    """By our names; a dense layer's is [in, out]."""
    found = {}
    modules = dict(model.named_modules())
    for theirs, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        name = theirs
        for pattern, replacement in NAMES.items():
            name = re.sub(pattern, replacement, name)
        linear = isinstance(modules[theirs.rpartition(".")[0]], torch.nn.Linear)
        found[name] = array.T if linear else array
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_pruned_graph_computes_the_pruned_model(name: str) -> None:
    """Every weight has the shape of theirs, and the hidden states are theirs."""
    technique, prune = CASES[name]
    model = bert()
    prune(model)
    model.double()  # what is pruned anew is in float32
    tokens = torch.randint(0, VOCAB, (1, TOKENS))
    plain = Bert(layers=LAYERS, d=D, heads=HEADS, ffn=FFN, vocab=VOCAB, positions=9, seq=TOKENS, pooler=False)
    graph = technique.transform(plain.lower())
    given = weights(model)
    needed = functional.random_inputs(graph, seed=0)
    assert {key: needed[key].shape for key in needed if key in given} == {
        key: array.shape for key, array in given.items()
    }
    given |= {"tokens": tokens.numpy(), "segments": np.zeros((1, TOKENS), int)}
    (output,) = graph.expand().outputs
    with torch.no_grad():
        wanted = model(tokens).last_hidden_state
    np.testing.assert_allclose(functional.run(graph, given)[output], wanted, rtol=0, atol=1e-11)
