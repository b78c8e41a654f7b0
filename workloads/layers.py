"""The pieces that transformer layers are made of: attention, feed-forward networks, embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import MatmulShape, Tensor
from tilewright.workloads.pairs import Pairs
from tilewright.workloads.steps import Step


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of an attention layer: `heads` query heads share `kv_heads` key and value heads."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Width of all queries."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class AttentionBias:
    """Which of the four projections have a bias."""

    query: bool = True
    key: bool = True
    value: bool = True
    output: bool = True


ALL_BIASES = AttentionBias()
NO_BIAS = AttentionBias(query=False, key=False, value=False, output=False)


def causal_pairs(tokens: int, context: int) -> int:
    """Pairs of the last `tokens` of a context with themselves and earlier ones."""
    return tokens * (context - tokens) + tokens * (tokens + 1) // 2


def attention_core(
    b: GraphBuilder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: Heads,
    function: str = "scale",
    score_bias: Tensor | None = None,
    order: str = "",
    *,
    pairs: Pairs | None = None,
    seen: int | None = None,
) -> Tensor:
    """softmax(function(Q K^T)) V, dense: masked scores are computed as well, but are no useful work.

    `query` is [batch, tokens, heads * head_dim]; `key` and `value` are [batch, context, kv_heads * head_dim],
    or caches [batch * kv_heads, context, head_dim]. An empty `function` does nothing; a `score_bias` is added
    in its place (T5, which does not scale), masks included. `order`: see `Operator`.
    `pairs`: what says which scores matter, to a unit that can skip the others (by default all that the
    function does not mask, of the stated model); `seen`: how many pairs of a
    sequence do, over all heads. Returns [batch, tokens, heads * head_dim].
    """
    batch, tokens, _ = query.shape
    group = heads.heads // heads.kv_heads
    context = key.elements // (batch * heads.kv_width)
    matrices, rows, width = batch * heads.kv_heads, group * tokens, heads.head_dim
    useful = None
    if function == "scale_mask":
        useful = matrices * group * causal_pairs(tokens, context) * width
    if seen is not None:
        useful = batch * seen * width
    scores = b.matmul(
        "scores",
        query,
        key,
        MatmulShape(matrices, rows, width, context),
        (matrices, rows, context),
        transpose_b=True,
        useful_macs=useful,
        order=order,
        pairs=pairs or Pairs(heads, tokens, context, causal=function == "scale_mask"),
    )
    if score_bias is not None:
        scores = b.elementwise("score_bias", "add", scores, score_bias)
    elif function:
        scores = b.elementwise(function, function, scores)
    weights = b.softmax("softmax", scores)
    shape = MatmulShape(matrices, rows, context, width)
    return b.matmul("context", weights, value, shape, (batch, tokens, heads.width), useful_macs=useful)


def encoder_attention(
    b: GraphBuilder,
    x: Tensor,
    heads: Heads,
    bias: AttentionBias = ALL_BIASES,
    score_bias: Tensor | None = None,
) -> Tensor:
    """Self-attention in both directions, with its projections, in scope `attention`."""
    with b.scope("attention"):
        query = b.linear("query", x, heads.width, bias=bias.query)
        key = b.linear("key", x, heads.kv_width, bias=bias.key)
        value = b.linear("value", x, heads.kv_width, bias=bias.value)
        context = attention_core(b, query, key, value, heads, score_bias=score_bias)
        return b.linear("output", context, x.shape[-1], bias=bias.output)


def decoder_attention(
    b: GraphBuilder,
    x: Tensor,
    heads: Heads,
    step: Step,
    bias: AttentionBias = ALL_BIASES,
    *,
    rope: Tensor | None = None,
    qk_norm: bool = False,
    window: int | None = None,
    score_bias: Tensor | None = None,
) -> Tensor:
    """Causal self-attention with a KV cache, in scope `attention`.

    New keys and values are written to the cache; a decode step reads all of it, a prefill works on the fresh
    ones. `window`: the cache is a rolling buffer of that many tokens (Mistral). `rope`: the table of angles.
    """
    with b.scope("attention"):
        query = b.linear("query", x, heads.width, bias=bias.query)
        key = b.linear("key", x, heads.kv_width, bias=bias.key)
        value = b.linear("value", x, heads.kv_width, bias=bias.value)
        if qk_norm:
            query = b.norm("query_norm", query, "rmsnorm", heads.head_dim)
            key = b.norm("key_norm", key, "rmsnorm", heads.head_dim)
        if rope is not None:
            query = b.elementwise("query_rope", "rope", query, rope)
            key = b.elementwise("key_rope", "rope", key, rope)
        cached = min(step.context, window or step.context)
        key_cache = _append(b, "key_cache", key, heads, cached)
        value_cache = _append(b, "value_cache", value, heads, cached)
        if step.decode:
            key, value = key_cache, value_cache
        function = "scale" if step.decode else "scale_mask"
        context = attention_core(b, query, key, value, heads, function, score_bias)
        return b.linear("output", context, x.shape[-1], bias=bias.output)


def cross_attention(
    b: GraphBuilder,
    x: Tensor,
    memory: Tensor | None,
    context: int,
    heads: Heads,
    bias: AttentionBias = ALL_BIASES,
    function: str = "scale",
) -> Tensor:
    """Attention of a decoder to the encoder's output `memory` [batch, context, width], in its own scope.

    Keys and values of the memory are worked out once and cached; without `memory` they are read from there.
    """
    batch = x.shape[0]
    shape = (batch * heads.kv_heads, context, heads.head_dim)
    with b.scope("cross_attention"):
        query = b.linear("query", x, heads.width, bias=bias.query)
        if memory is None:
            key, value = b.cache("key_cache", shape), b.cache("value_cache", shape)
        else:
            key = b.linear("key", memory, heads.kv_width, bias=bias.key)
            value = b.linear("value", memory, heads.kv_width, bias=bias.value)
            b.append("key_cache", key, batch * context, shape, in_scope=False)
            b.append("value_cache", value, batch * context, shape, in_scope=False)
        result = attention_core(b, query, key, value, heads, function)
        return b.linear("output", result, x.shape[-1], bias=bias.output)


def _append(b: GraphBuilder, name: str, x: Tensor, heads: Heads, cached: int) -> Tensor:
    batch, tokens, _ = x.shape
    return b.append(name, x, batch * min(tokens, cached), (batch * heads.kv_heads, cached, heads.head_dim))


def feed_forward(b: GraphBuilder, x: Tensor, width: int, act: str, *, bias: bool = True) -> Tensor:
    """W2 act(W1 x), in scope `ffn`."""
    with b.scope("ffn"):
        hidden = b.elementwise("act", act, b.linear("up", x, width, bias=bias))
        return b.linear("down", hidden, x.shape[-1], bias=bias)


def gated_feed_forward(b: GraphBuilder, x: Tensor, width: int, act: str, *, bias: bool = False) -> Tensor:
    """W_down (act(W_gate x) * W_up x) (Shazeer, arXiv:2002.05202), in scope `ffn`."""
    with b.scope("ffn"):
        gate = b.elementwise("act", act, b.linear("gate", x, width, bias=bias))
        product = b.elementwise("gated", "multiply", gate, b.linear("up", x, width, bias=bias))
        return b.linear("down", product, x.shape[-1], bias=bias)


def residual_norm(b: GraphBuilder, name: str, x: Tensor, branch: Tensor) -> Tensor:
    """LayerNorm(x + branch): the end of a sublayer in a post-norm model."""
    return b.norm(f"{name}_norm", residual(b, name, x, branch))


def residual(b: GraphBuilder, name: str, x: Tensor, branch: Tensor) -> Tensor:
    """x + branch."""
    return b.elementwise(f"{name}_residual", "add", x, branch)


Attend = Callable[[GraphBuilder, Tensor, Heads, AttentionBias], Tensor]
"""Self-attention of an encoder layer, projections included, in scope `attention`."""


def encoder_layer(
    b: GraphBuilder, x: Tensor, heads: Heads, width: int, act: str, attend: Attend = encoder_attention
) -> Tensor:
    """A post-norm encoder layer (Vaswani et al., arXiv:1706.03762; BERT)."""
    x = residual_norm(b, "attention", x, attend(b, x, heads, ALL_BIASES))
    return residual_norm(b, "ffn", x, feed_forward(b, x, width, act))


def prenorm_encoder_layer(
    b: GraphBuilder,
    x: Tensor,
    heads: Heads,
    width: int,
    act: str,
    bias: AttentionBias = ALL_BIASES,
    attend: Attend = encoder_attention,
) -> Tensor:
    """A pre-norm encoder layer (ViT, Whisper)."""
    x = residual(b, "attention", x, attend(b, b.norm("attention_norm", x), heads, bias))
    return residual(b, "ffn", x, feed_forward(b, b.norm("ffn_norm", x), width, act))


def embed(b: GraphBuilder, tokens: Tensor, vocab: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows of the embedding table `word.weight` for token indices [batch, tokens]; also the table."""
    table = b.weight("word.weight", (vocab, width))
    return b.gather("word", "lookup", (table, tokens), (*tokens.shape, width)), table


def learned_positions(b: GraphBuilder, rows: int, tokens: int, width: int) -> Tensor:
    """The rows of a table of `rows` learned positions that `tokens` consecutive tokens need."""
    table = b.weight("position.weight", (rows, width))
    return b.gather("position", "slice", (table,), (tokens, width))
