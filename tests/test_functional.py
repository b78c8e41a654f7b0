"""The numerical evaluation of operator graphs against plain numpy, written head by head and step by step."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.arch.array import Array, Dataflow
from tilewright.description.errors import InputError
from tilewright.sim import functional, numerics
from tilewright.sim.pe_array import PeArray
from tilewright.workloads import primitives
from tilewright.workloads.bare import Attention, EncoderBlock, Gemm, LayerNorm, Softmax
from tilewright.workloads.description import Activation
from tilewright.workloads.families.bert import Bert
from tilewright.workloads.families.gpt2 import Gpt2
from tilewright.workloads.families.llama import Llama
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import Operator, RowsShape, Tensor

Values = npt.NDArray[Any]
Named = Mapping[str, Values]


def softmax_oracle(row: Values) -> Values:
    powers = np.array([math.exp(x - max(row)) for x in row])
    weights: Values = powers / powers.sum()
    return weights


def head_oracle(query: Values, key: Values, value: Values, causal: bool) -> Values:
    """Attention of one head, query by query; query [t, d], key and value [c, d]."""
    out = np.zeros((len(query), value.shape[1]))
    for position, q in enumerate(query):
        seen = position + len(key) - len(query) + 1 if causal else len(key)
        out[position] = softmax_oracle(key[:seen] @ q / math.sqrt(len(q))) @ value[:seen]
    return out


def attention_oracle(q: Values, k: Values, v: Values, heads: int, kv_heads: int, causal: bool) -> Values:
    """[batch, t, heads * d] from the same and [batch, c, kv_heads * d]; head h uses KV head
    h // (heads / kv_heads)."""
    width = q.shape[2] // heads
    out = np.zeros(q.shape)
    for sequence in range(len(q)):
        for head in range(heads):
            mine = slice(head * width, (head + 1) * width)
            kv = head // (heads // kv_heads)
            theirs = slice(kv * width, (kv + 1) * width)
            out[sequence, :, mine] = head_oracle(
                q[sequence][:, mine], k[sequence][:, theirs], v[sequence][:, theirs], causal
            )
    return out


def layernorm_oracle(x: Values, gamma: Values, beta: Values) -> Values:
    out = np.empty(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        out[place] = (x[place] - np.mean(x[place])) / np.sqrt(np.var(x[place]) + 1e-5)
    return out * gamma + beta


def dense(values: Named, x: Values, name: str) -> Values:
    bias = values.get(f"{name}.bias")
    y = np.einsum("btk,kn->btn", x, values[f"{name}.weight"])
    return np.asarray(y if bias is None else y + bias)


def encoder_layer_oracle(values: Named, x: Values, heads: int, act: str, prefix: str = "") -> Values:
    q, k, v = (dense(values, x, f"{prefix}attention.{part}") for part in ("query", "key", "value"))
    attended = dense(values, attention_oracle(q, k, v, heads, heads, False), f"{prefix}attention.output")
    norm = f"{prefix}attention_norm"
    x = layernorm_oracle(x + attended, values[f"{norm}.weight"], values[f"{norm}.bias"])
    hidden = ACTIVATION_ORACLES[act](dense(values, x, f"{prefix}ffn.up"))
    norm = f"{prefix}ffn_norm"
    return layernorm_oracle(
        x + dense(values, hidden, f"{prefix}ffn.down"), values[f"{norm}.weight"], values[f"{norm}.bias"]
    )


ACTIVATION_ORACLES = {
    "relu": np.vectorize(lambda x: max(x, 0.0)),
    "tanh": np.vectorize(math.tanh),
    "sigmoid": np.vectorize(lambda x: 1 / (1 + math.exp(-x))),
    "gelu": np.vectorize(lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2))),
    "gelu_new": np.vectorize(
        lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "quick_gelu": np.vectorize(lambda x: x / (1 + math.exp(-1.702 * x))),
    "silu": np.vectorize(lambda x: x / (1 + math.exp(-x))),
}


def pe_matmul(dataflow: Dataflow) -> functional.Matmul:
    """A batched matmul, each matrix of which goes through an array PE by PE."""
    pe = PeArray(Array(rows=3, cols=4, dataflow=dataflow))

    def one(a: Values, b: Values) -> Values:
        pe.start(a, b)
        while pe.step():
            pass
        return pe.result.copy()

    return lambda a, b: np.stack([one(*pair) for pair in zip(a, b, strict=True)])


def result(graph: OperatorGraph, values: Named) -> Values:
    """The value of the graph's first output, once everything has its declared shape."""
    plain = graph.expand()
    for name, value in values.items():
        assert value.shape == plain.tensors[name].shape
    return values[plain.outputs[0]]


@pytest.mark.parametrize("batch", [1, 3])
def test_gemm_is_exact_on_integers(batch: int) -> None:
    """A graph of matmuls gets integers, and each product equals the sum of products written out."""
    graph = Gemm(m=4, k=5, n=6, batch=batch).lower()
    values = functional.run(graph, functional.random_inputs(graph, seed=1))
    a, b = values["a"].reshape(batch, 4, 5), values["b"].reshape(batch, 5, 6)
    expected = (a[:, :, :, None] * b[:, None, :, :]).sum(axis=2)
    assert values["gemm"].dtype == np.int64
    assert np.array_equal(values["gemm"].reshape(batch, 4, 6), expected)


def test_softmax_and_layernorm_work_row_by_row() -> None:
    """Softmax and layer norm of a matrix are those of its rows."""
    graph = Softmax(rows=4, cols=7).lower()
    values = functional.run(graph, functional.random_inputs(graph, seed=2))
    np.testing.assert_allclose(
        result(graph, values), [softmax_oracle(row) for row in values["x"]], rtol=1e-12
    )

    graph = LayerNorm(rows=4, cols=7).lower()
    values = functional.run(graph, functional.random_inputs(graph, seed=2))
    gamma, beta = values["layernorm.weight"], values["layernorm.bias"]
    np.testing.assert_allclose(
        result(graph, values), layernorm_oracle(values["x"], gamma, beta), rtol=1e-12, atol=1e-14
    )


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    head_dim=st.integers(1, 5),
    seq=st.integers(1, 5),
    extra=st.integers(0, 3),
    causal=st.booleans(),
)
def test_attention_equals_the_definition_head_by_head(
    batch: int, kv_heads: int, group: int, head_dim: int, seq: int, extra: int, causal: bool
) -> None:
    """Dense attention, grouped-query and causal included, is the textbook's, for any sizes."""
    graph = Attention(
        batch=batch,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=head_dim,
        seq=seq,
        kv_seq=seq + extra,
        mask="causal" if causal else "none",
    ).lower()
    values = functional.run(graph, functional.random_inputs(graph, seed=seq))
    q, k, v = values["query"], values["key"], values["value"]
    expected = attention_oracle(q, k, v, kv_heads * group, kv_heads, causal)
    np.testing.assert_allclose(result(graph, values), expected, rtol=1e-11, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(
    group=st.integers(1, 2),
    seq=st.integers(1, 7),
    extra=st.integers(0, 3),
    window=st.integers(1, 9),
    causal=st.booleans(),
)
def test_windowed_attention_equals_the_definition(
    group: int, seq: int, extra: int, window: int, causal: bool
) -> None:
    """A query sees the `window` keys that end at its own, or half of them to each side; as many pairs are
    counted as useful."""
    shape = {"heads": group, "kv_heads": 1, "head_dim": 3, "seq": seq, "kv_seq": seq + extra}
    graph = Attention(**shape, mask="causal" if causal else "none", window=window).lower()
    values = functional.run(graph, functional.random_inputs(graph, seed=seq))
    q, k, v = (values[name][0] for name in ("query", "key", "value"))
    pairs = 0
    for head in range(group):
        for t in range(seq):
            own = t + extra
            keys = (
                range(own - window + 1, own + 1)
                if causal
                else range(own - window // 2, own + window // 2 + 1)
            )
            seen = [j for j in keys if 0 <= j < seq + extra]
            mine = slice(3 * head, 3 * head + 3)
            expected = softmax_oracle(k[seen] @ q[t, mine] / math.sqrt(3)) @ v[seen]
            np.testing.assert_allclose(result(graph, values)[0, t, mine], expected, rtol=1e-11, atol=1e-13)
            pairs += len(seen)
    assert graph.useful_macs == 2 * 3 * pairs


@pytest.mark.parametrize("act", ["relu", "tanh", "gelu", "gelu_new", "quick_gelu", "silu"])
def test_encoder_block_equals_plain_numpy(act: Activation) -> None:
    """Projections with biases, attention, feed-forward network, residuals and norms add up to the layer."""
    graph = EncoderBlock(d=6, heads=2, ffn=8, seq=5, batch=2, act=act).lower()
    values = functional.run(graph, functional.random_inputs(graph, seed=3))
    expected = encoder_layer_oracle(values, values["x"], 2, act)
    np.testing.assert_allclose(result(graph, values), expected, rtol=1e-10, atol=1e-12)


def test_bert_equals_plain_numpy() -> None:
    """A whole small BERT: lookups, repeated layers with weights of their own, pooler on the first token."""
    graph = Bert(layers=3, d=6, heads=3, ffn=8, vocab=11, positions=9, seq=4, batch=2).lower()
    values = functional.run(graph, functional.random_inputs(graph, seed=4))
    x = values["embeddings.word.weight"][values["tokens"]]
    x = x + values["embeddings.position.weight"][:4]
    x = x + values["embeddings.segment.weight"][values["segments"]]
    x = layernorm_oracle(x, values["embeddings.norm.weight"], values["embeddings.norm.bias"])
    for layer in range(3):
        x = encoder_layer_oracle(values, x, 3, "gelu", f"layers.{layer}.")
    states, pooled = graph.expand().outputs
    np.testing.assert_allclose(values[states], x, rtol=1e-9, atol=1e-11)
    expected = np.tanh(x[:, :1] @ values["pooler.dense.weight"] + values["pooler.dense.bias"])
    np.testing.assert_allclose(values[pooled], expected, rtol=1e-9, atol=1e-11)


def rope_oracle(x: Values, angles: Values) -> Values:
    """Pairs (j, j + d/2) of each head are turned; the table's two halves give each partner its angle."""
    out = x.copy()
    half = angles.shape[1] // 2
    for sequence, token, first in np.ndindex(*x.shape[:2], x.shape[2] // (2 * half)):
        for j in range(half):
            low, high = first * 2 * half + j, first * 2 * half + j + half
            a, b = x[sequence, token, low], x[sequence, token, high]
            out[sequence, token, low] = a * math.cos(angles[token, j]) - b * math.sin(angles[token, j])
            far = angles[token, j + half]
            out[sequence, token, high] = b * math.cos(far) + a * math.sin(far)
    return out


def rmsnorm_oracle(values: Named, x: Values, name: str) -> Values:
    out = np.empty(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        out[place] = x[place] / math.sqrt(sum(v * v for v in x[place]) / x.shape[-1] + 1e-5)
    return out * values[f"{name}.weight"]


def test_llama_prefill_equals_plain_numpy() -> None:
    """A whole small LLaMA: RMSNorm, rotary positions, grouped queries, causal mask, gated network."""
    graph = Llama(layers=2, d=8, heads=4, kv_heads=2, ffn=6, vocab=9, seq=5, batch=2, tied=True).lower()
    values = functional.run(graph, functional.random_inputs(graph, seed=5))
    table, angles = values["embeddings.word.weight"], values["angles"]
    x = table[values["tokens"]]
    for layer in ("layers.0.", "layers.1."):
        y = rmsnorm_oracle(values, x, f"{layer}attention_norm")
        q, k, v = (dense(values, y, f"{layer}attention.{part}") for part in ("query", "key", "value"))
        y = attention_oracle(rope_oracle(q, angles), rope_oracle(k, angles), v, 4, 2, causal=True)
        x = x + dense(values, y, f"{layer}attention.output")
        y = rmsnorm_oracle(values, x, f"{layer}ffn_norm")
        gate = ACTIVATION_ORACLES["silu"](dense(values, y, f"{layer}ffn.gate"))
        x = x + dense(values, gate * dense(values, y, f"{layer}ffn.up"), f"{layer}ffn.down")
    logits = rmsnorm_oracle(values, x, "norm") @ table.T
    np.testing.assert_allclose(result(graph, values), logits, rtol=1e-9, atol=1e-11)


def test_gpt2_takes_the_last_tokens_arg_max() -> None:
    """With one token to generate, the output is the arg-max of the last position's logits."""
    sizes: dict[str, Any] = {"layers": 2, "d": 6, "heads": 2, "ffn": 8, "vocab": 13, "positions": 8, "seq": 5}
    every, last = Gpt2(**sizes).lower(), Gpt2(**sizes, generate=1).lower()
    values = functional.random_inputs(every, seed=6)
    logits = result(every, functional.run(every, values))
    chosen = result(last, functional.run(last, {**values, **_renamed(last, values)}))
    assert chosen.reshape(-1) == logits[0, -1].argmax()


def _renamed(graph: OperatorGraph, values: Named) -> dict[str, Values]:
    """The inputs under the names that a run with a prefill gives them."""
    return dict.fromkeys(graph.inputs, values["tokens"])


@pytest.mark.parametrize("dataflow", ["weight_stationary", "input_stationary", "output_stationary"])
def test_another_matmul_can_be_put_in(dataflow: Dataflow) -> None:
    """With every product done PE by PE, an encoder block comes out the same."""
    graph = EncoderBlock(d=6, heads=2, ffn=8, seq=5).lower()
    inputs = functional.random_inputs(graph, seed=7)
    plain, stepped = functional.run(graph, inputs), functional.run(graph, inputs, pe_matmul(dataflow))
    np.testing.assert_allclose(result(graph, stepped), result(graph, plain), rtol=1e-10, atol=1e-12)


def test_random_inputs_depend_on_the_seed_alone() -> None:
    """Equal seeds give equal inputs, other seeds others; every tensor that nobody makes gets one."""
    graph = Bert(layers=2, d=4, heads=2, ffn=4, vocab=11, positions=4, seq=4).lower()
    first, again, other = (functional.random_inputs(graph, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)
    plain = graph.expand()
    assert set(first) == set(plain.tensors) - {name for op in plain.operators for name in op.outputs}
    assert first["tokens"].max() < 11


COSTED_ONLY = {
    "causal_self_mask", "clip", "compare", "elu_plus_one", "exp", "extreme", "identity_minus", "mask",
    "minus_infinity_mask", "negate", "positive_feature", "relu_offset", "round", "scale_causal_self_mask",
    "scale_position_mask", "self_mask", "sine", "sinkhorn_logits", "where",
}  # fmt: skip
"""Functions of attention mechanisms and ONNX imports whose operands are not all in the graph: `cycle`
fidelity refuses them by name; the mechanisms' own references compute them."""


@pytest.mark.parametrize("function", sorted(primitives.ELEMENTWISE))
def test_every_elementwise_function_has_a_model_or_is_listed(function: str) -> None:
    """Whatever a lowering may charge as elementwise can be computed, but for a list."""
    assert (("elementwise", function) in functional.MODELS) != (function in COSTED_ONLY)


@pytest.mark.parametrize("function", sorted(ACTIVATION_ORACLES))
def test_activations_equal_their_definitions(function: str) -> None:
    """Each activation is its definition, also far from zero."""
    x = np.concatenate([np.linspace(-6, 6, 49), [-300.0, 300.0]])
    expected = ACTIVATION_ORACLES[function](x)
    np.testing.assert_allclose(numerics.UNARY[function](x), expected, rtol=1e-11, atol=1e-12)


def one_operator(op: Operator, *tensors: Tensor) -> OperatorGraph:
    return OperatorGraph("one", (op,), {tensor.name: tensor for tensor in tensors}, outputs=op.outputs)


def test_an_operator_without_a_model_is_named() -> None:
    """The message says which operation, which operator, and what to do; nothing has been computed by then."""
    op = Operator("layers.0.x", "sort", ("x",), ("layers.0.x",), RowsShape(2, 3))
    graph = one_operator(op, Tensor("x", (2, 3)), Tensor("layers.0.x", (2, 3)))
    message = "`cycle` fidelity has no numerical model of 'sort' (operator layers.0.x); use fidelity event"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        functional.evaluate(op, [np.zeros((2, 3))], graph)
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        functional.run(graph, {})


def test_a_decode_step_has_no_model() -> None:
    """What a KV cache held before is not in the graph: the run is refused, each operation once."""
    graph = Llama(layers=2, d=8, heads=4, ffn=6, vocab=9, seq=5, phase="decode").lower()
    message = (
        "`cycle` fidelity has no numerical model of 'append' (operator layers.0.attention.key_cache); "
        "use fidelity event"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        functional.run(graph, {})
