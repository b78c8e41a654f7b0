"""Bare workloads: one operator or one block, with its shapes as fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from tilewright.workloads.attention.choice import AttentionChoice, layer_choices, only_causal
from tilewright.workloads.attention.mask_file import MaskFile, load, masked
from tilewright.workloads.attention.scores import Scores
from tilewright.workloads.attention.stack import block_attend, encoder_attend
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Block, Model, Size, Workload, divisor_of
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads, attention_core, encoder_layer
from tilewright.workloads.operators import MatmulShape
from tilewright.workloads.pairs import Pairs
from tilewright.workloads.steps import steps


class Gemm(Workload):
    """C[m, n] = A[m, k] B[k, n], `batch` times; B is a weight, its own for each matrix."""

    family: Literal["gemm"] = "gemm"
    m: Size = 512
    k: Size = 768
    n: Size = 768
    batch: Size = 1
    """Independent products."""

    def lower(self) -> OperatorGraph:
        """One matmul."""
        b = GraphBuilder(self.title, self.element)
        batch = () if self.batch == 1 else (self.batch,)
        a = b.input("a", (*batch, self.m, self.k))
        weight = b.weight("b", (*batch, self.k, self.n))
        shape = MatmulShape(self.batch, self.m, self.k, self.n)
        return b.finish(b.matmul("gemm", a, weight, shape, (*batch, self.m, self.n)), family=self.family)


def _plain(name: str) -> str:
    if "{" in name or "}" in name:
        raise ValueError("a name can't hold braces")
    return name


class NamedGemm(Block):
    """One row of a list of matrix products: C[m, n] = A[m, k] B[k, n]."""

    name: Annotated[str, Field(min_length=1), AfterValidator(_plain)]
    m: Size
    k: Size
    n: Size
    batch: Size = 1
    """Independent products, each with its own B."""


def _distinct(gemms: tuple[NamedGemm, ...]) -> tuple[NamedGemm, ...]:
    if not gemms:
        raise ValueError("must hold at least one matrix product")
    taken: set[str] = set()
    for gemm in gemms:
        names = {gemm.name, f"{gemm.name}.a", f"{gemm.name}.b"}
        if taken & names:
            raise ValueError(f"the name {gemm.name!r} is taken; operands are called NAME.a and NAME.b")
        taken |= names
    return gemms


class Gemms(Workload):
    """Matrix products that have nothing to do with each other, in order."""

    family: Literal["gemms"] = "gemms"
    gemms: Annotated[tuple[NamedGemm, ...], AfterValidator(_distinct)]

    def lower(self) -> OperatorGraph:
        """One matmul each."""
        b = GraphBuilder(self.title, self.element)
        out = []
        for gemm in self.gemms:
            batch = () if gemm.batch == 1 else (gemm.batch,)
            first = b.input(f"{gemm.name}.a", (*batch, gemm.m, gemm.k))
            second = b.weight(f"{gemm.name}.b", (*batch, gemm.k, gemm.n))
            shape = MatmulShape(gemm.batch, gemm.m, gemm.k, gemm.n)
            out.append(b.matmul(gemm.name, first, second, shape, (*batch, gemm.m, gemm.n)))
        return b.finish(*out, family=self.family)


class Softmax(Workload):
    """Softmax of each of `rows` rows."""

    family: Literal["softmax"] = "softmax"
    rows: Size = 512
    cols: Size = 512

    def lower(self) -> OperatorGraph:
        """One softmax."""
        b = GraphBuilder(self.title, self.element)
        return b.finish(b.softmax("softmax", b.input("x", (self.rows, self.cols))), family=self.family)


class LayerNorm(Workload):
    """Layer normalisation of each of `rows` rows."""

    family: Literal["layernorm"] = "layernorm"
    rows: Size = 512
    cols: Size = 768

    def lower(self) -> OperatorGraph:
        """One norm."""
        b = GraphBuilder(self.title, self.element)
        return b.finish(b.norm("layernorm", b.input("x", (self.rows, self.cols))), family=self.family)


class Attention(Model):
    """softmax(scale Q K^T + mask) V without projections, dense.

    Query [batch, seq, heads * head_dim]; key and value [batch, kv_seq, kv_heads * head_dim].
    """

    family: Literal["attention"] = "attention"
    heads: Size = 12
    """Query heads."""
    kv_heads: Annotated[Size | None, divisor_of("heads")] = None
    """Key and value heads; by default as many as query heads."""
    head_dim: Size = 64
    seq: Size = 512
    """Queries."""
    kv_seq: Size | None = None
    """Keys; by default as many as queries."""
    mask: Literal["none", "causal"] = "none"
    """`causal`: query i sees keys j <= i + kv_seq - seq; masked scores are computed as well."""
    window: Size | None = None
    """Keys that a query sees, as in the mechanism `sliding_window`: with `mask: causal` the last ones up to
    its own, else half of them to each side. All scores are computed but by a unit that skips."""
    scores: Scores | None = None
    """Where queries and keys come from, for a machine that predicts which scores matter; by default the
    stated model draws them."""

    attention: MaskFile | None = None
    """Who sees whom, from a file, with `kernel: masked`; all scores are computed but by a unit that skips."""

    @model_validator(mode="after")
    def _masks_are_all_there_is(self) -> Attention:
        if self.attention is None:
            return self
        plain = self.mask == "none" and self.window is None and self.kv_seq in (None, self.seq)
        if self.attention.kernel != "masked" or not plain:
            raise ValueError(
                "`attention`, masks from a file, takes `kernel: masked`, `mask: none`, no `window` and as "
                "many keys as queries"
            )
        return self

    @model_validator(mode="after")
    def _every_window_has_its_keys(self) -> Attention:
        if self.window is not None and self.kv_seq is not None and self.kv_seq < self.seq:
            raise ValueError(f"`window` needs `kv_seq` ({self.kv_seq}) to be at least `seq` ({self.seq})")
        return self

    @field_validator("mask")
    @classmethod
    def _every_query_sees_a_key(cls, mask: str, info: ValidationInfo) -> str:
        queries, keys = info.data.get("seq", 0), info.data.get("kv_seq")
        if mask == "causal" and keys is not None and keys < queries:
            raise ValueError(f"a causal mask needs `kv_seq` ({keys}) to be at least `seq` ({queries})")
        return mask

    def lower(self) -> OperatorGraph:
        """Scores, scale or mask, softmax, context."""
        b = GraphBuilder(self.title, self.element)
        heads = Heads(self.heads, self.kv_heads or self.heads, self.head_dim)
        context = self.kv_seq or self.seq
        query = b.input("query", (self.batch, self.seq, heads.width))
        key = b.input("key", (self.batch, context, heads.kv_width))
        value = b.input("value", (self.batch, context, heads.kv_width))
        if self.attention is not None:
            masks = load(self.attention, self.heads, context)
            out = masked(b, query, key, value, heads, self.attention, masks)
            return b.finish(out, family=self.family)
        causal = self.mask == "causal"
        function = "scale_mask" if causal or self.window else "scale"
        pairs = Pairs(heads, self.seq, context, causal=causal, scores=self.scores, window=self.window)
        seen = pairs.count() if self.window else None
        out = attention_core(b, query, key, value, heads, function, pairs=pairs, seen=seen)
        return b.finish(out, family=self.family)


def _causal_if_decoding(phase: str, info: ValidationInfo) -> str:
    if phase == "decode" and info.data.get("causal") is False:
        raise ValueError("only a causal layer takes one token at a time; set `causal` to true")
    return phase


class EncoderBlock(Model):
    """One post-norm encoder layer with biases, as in BERT."""

    family: Literal["encoder_block"] = "encoder_block"
    d: Size = 768
    """Width of the model."""
    heads: Annotated[Size, divisor_of("d")] = 12
    ffn: Size = 3072
    """Width of the feed-forward network."""
    seq: Size = 128
    """Tokens of each sequence."""
    act: Activation = "gelu"
    causal: bool | None = None
    """Whether a token sees only itself and earlier ones (a decoder's layer); keys and values are kept. By
    default where the mechanism can't look both ways, and in a decode step."""
    phase: Annotated[Literal["prefill", "decode"], AfterValidator(_causal_if_decoding)] = "prefill"
    """`decode`, where it is causal: one token, whose attention reads what the layer has kept of `seq` tokens,
    the token itself included."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense."""

    def lower(self) -> OperatorGraph:
        """Projections, attention, feed-forward network, two residuals, two norms."""
        b = GraphBuilder(self.title, self.element)
        (step,) = steps(self.seq, self.phase, generate=0)
        (choice,) = layer_choices(self.attention, 1)
        causal = self.causal
        if causal is None:
            causal = self.phase == "decode" or (choice is not None and only_causal(choice))
        attend = block_attend(choice, step) if causal else encoder_attend(choice)
        x = b.input("x", (self.batch, step.tokens, self.d))
        heads = Heads(self.heads, self.heads, self.d // self.heads)
        return b.finish(encoder_layer(b, x, heads, self.ffn, self.act, attend), family=self.family)
