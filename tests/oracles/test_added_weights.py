"""Low-rank adaptation, adapters and reversible layers: what the compressed graphs compute, against PyTorch.

torch's encoder layer with merged weights (LoRA) or with bottlenecks hooked behind its sublayers (adapters);
reversible blocks of performer-pytorch 1.1.4 around the layers of GPT-2 in Hugging Face Transformers.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import transformers

from tilewright.sim import functional, numerics
from tilewright.workloads.bare import EncoderBlock
from tilewright.workloads.compression.adapters import Adapters
from tilewright.workloads.compression.lora import Lora
from tilewright.workloads.compression.reversible import Reversible
from tilewright.workloads.families.gpt2 import Gpt2

with warnings.catch_warnings():  # the package uses distutils
    warnings.simplefilter("ignore")
    from performer_pytorch.reversible import ReversibleBlock

D, HEADS, FFN, TOKENS, RANK = 8, 2, 12, 6, 3
Arrays = dict[str, np.ndarray]


def encoder_layer(values: Arrays) -> torch.nn.TransformerEncoderLayer:
    """torch's post-norm layer with the weights of an encoder block, in float64 and without dropout."""
    layer = torch.nn.TransformerEncoderLayer(
        D, HEADS, FFN, dropout=0.0, activation="gelu", layer_norm_eps=numerics.NORM_EPSILON, batch_first=True
    ).double()
    parts = [f"attention.{part}" for part in ("query", "key", "value")]
    weights = {
        "self_attn.in_proj_weight": np.concatenate([values[f"{part}.weight"].T for part in parts]),
        "self_attn.in_proj_bias": np.concatenate([values[f"{part}.bias"] for part in parts]),
    }
    pairs = {"self_attn.out_proj": "attention.output", "linear1": "ffn.up", "linear2": "ffn.down"}
    pairs |= {"norm1": "attention_norm", "norm2": "ffn_norm"}
    for theirs, ours in pairs.items():
        for part in ("weight", "bias"):
            weights[f"{theirs}.{part}"] = values[f"{ours}.{part}"].T
    layer.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return layer


def test_low_rank_terms_are_those_of_merged_weights() -> None:
    """x W + (x A) B, run as the graph has it, is torch's layer with W + A B in its place."""
    graph = Lora(rank=RANK).transform(EncoderBlock(d=D, heads=HEADS, ffn=FFN, seq=TOKENS).lower())
    values = functional.random_inputs(graph, seed=1)
    merged = dict(values)
    for stem in ("attention.query", "attention.value"):
        term = values[f"{stem}.lora_a.weight"] @ values[f"{stem}.lora_b.weight"]
        merged[f"{stem}.weight"] = values[f"{stem}.weight"] + term
    expected = encoder_layer(merged)(torch.from_numpy(values["x"])).detach().numpy()
    made = functional.run(graph, values)[graph.outputs[0]]
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-13)


def test_adapters_stand_behind_both_sublayers() -> None:
    """x + gelu(x D) U before each residual sum (Houlsby et al., figure 2), hooked into torch's layer."""
    graph = Adapters(width=RANK).transform(EncoderBlock(d=D, heads=HEADS, ffn=FFN, seq=TOKENS).lower())
    values = functional.random_inputs(graph, seed=2)
    layer = encoder_layer(values)

    def adapted(stem: str, x: torch.Tensor) -> torch.Tensor:
        weights = {n.removeprefix(f"{stem}."): torch.from_numpy(v) for n, v in values.items() if stem in n}
        hidden = torch.nn.functional.gelu(x @ weights["down.weight"] + weights["down.bias"])
        return x + hidden @ weights["up.weight"] + weights["up.bias"]

    layer.self_attn.register_forward_hook(
        lambda _module, _inputs, out: (adapted("attention.output.adapter", out[0]), *out[1:])
    )
    layer.linear2.register_forward_hook(lambda _module, _inputs, out: adapted("ffn.down.adapter", out))
    expected = layer(torch.from_numpy(values["x"])).detach().numpy()
    made = functional.run(graph, values)[graph.outputs[0]]
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-13)


class Attention(torch.nn.Module):
    """The first branch of GPT-2's layer."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        later = torch.full((x.shape[1], x.shape[1]), -torch.inf, dtype=x.dtype).triu(1)
        return self.layer.attn(self.layer.ln_1(x), attention_mask=later[None, None])[0]


def test_reversible_layers_run_forwards_and_back() -> None:
    """Both streams of every layer are the package's, whose backward pass gets the first layer's input back
    from the last streams; what follows reads their mean."""
    torch.manual_seed(0)
    sizes = {
        "n_embd": D,
        "n_layer": 2,
        "n_head": HEADS,
        "n_inner": FFN,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }
    config = transformers.GPT2Config(11, 9, **sizes, attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config).double()
    blocks = [
        ReversibleBlock(Attention(layer), torch.nn.Sequential(layer.ln_2, layer.mlp))
        for layer in model.transformer.h
    ]
    graph = Reversible().transform(
        Gpt2(layers=2, d=D, heads=HEADS, ffn=FFN, vocab=11, positions=9, seq=TOKENS).lower()
    )
    values = functional.run(graph, gpt2_inputs(model))
    start = torch.from_numpy(values["embeddings.sum"])
    streams = torch.cat([start, start], dim=2)
    for i, block in enumerate(blocks):
        streams = block(streams)
        ours = np.concatenate(
            [values[f"layers.{i}.attention_residual"], values[f"layers.{i}.ffn_residual"]], 2
        )
        np.testing.assert_allclose(ours, streams, rtol=0, atol=1e-13)
    with torch.no_grad():
        logits = model.lm_head(model.transformer.ln_f(sum(streams.chunk(2, dim=2)) / 2))
    np.testing.assert_allclose(values[graph.outputs[0]], logits, rtol=0, atol=1e-13)
    back = torch.from_numpy(ours)
    for block in reversed(blocks):
        back, _ = block.backward_pass(back, torch.zeros_like(back))
    np.testing.assert_allclose(back.detach(), torch.cat([start, start], dim=2), rtol=0, atol=1e-13)


def gpt2_inputs(model: torch.nn.Module) -> Arrays:
    """Weights and tokens under our names."""
    state = {name: array.numpy() for name, array in model.state_dict().items()}
    inputs = {"tokens": np.arange(TOKENS)[None], "embeddings.word.weight": state["transformer.wte.weight"]}
    inputs["embeddings.position.weight"] = state["transformer.wpe.weight"]
    pairs = {"ln_1": "attention_norm", "ln_2": "ffn_norm", "attn.c_proj": "attention.output"}
    pairs |= {"mlp.c_fc": "ffn.up", "mlp.c_proj": "ffn.down"}
    for part in ("weight", "bias"):
        inputs[f"norm.{part}"] = state[f"transformer.ln_f.{part}"]
        for i in range(2):
            for theirs, ours in pairs.items():
                inputs[f"layers.{i}.{ours}.{part}"] = state[f"transformer.h.{i}.{theirs}.{part}"]
            split = np.split(state[f"transformer.h.{i}.attn.c_attn.{part}"], 3, axis=-1)
            for name, array in zip(("query", "key", "value"), split, strict=True):
                inputs[f"layers.{i}.attention.{name}.{part}"] = array
    return inputs
