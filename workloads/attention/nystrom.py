"""Nyströmformer: the softmax matrix approximated through m landmarks (the Nyström method).

Xiong, Zeng, Chakraborty, Tan, Fung, Li and Singh, "Nyströmformer: A Nyström-based Algorithm for Approximating
Self-Attention", arXiv:2102.03902.

    Y = softmax(Q K~^T) Z softmax(Q~ K^T) V + conv(V),   Z ~ pinv(softmax(Q~ K~^T))

Q and K are scaled by e^-1/4 each; the landmarks Q~ and K~ [m, e] are means of n/m consecutive rows. Z follows
from 6 steps Z <- Z (13 I - AZ (15 I - AZ (7 I - AZ))) / 4, begun with A^T / (largest column sum of A); as in
the public code that sum is one for all heads and sequences. The convolution is depthwise along the tokens,
with one filter a head. As many landmarks as tokens is dense attention (and that convolution).

Per layer: 4 n d^2 (projections) + 4 n m d + m^2 d + h n m^2 + 4 i h m^3 MACs with i steps, h (2 n m + m^2)
exponentials, and n d taps multiplications of the convolution on the vector unit. Tokens are padded to a
multiple of m.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.sublayer import output, padded, project, require_both_ways
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Heads, attention_core
from tilewright.workloads.operators import MatmulShape, Tensor


class Nystrom(Parameters):
    """Attention through landmarks."""

    kind: Literal["nystrom"] = "nystrom"
    landmarks: Annotated[int, Field(gt=0)] = 64
    """Landmarks m."""
    iterations: Annotated[int, Field(gt=0, le=64)] = 6
    """Steps towards the pseudo-inverse."""
    taps: Annotated[int, Field(ge=0)] = 65
    """Taps of the convolution of the values, an odd number; 0: none."""

    @field_validator("taps")
    @classmethod
    def _the_middle_tap_is_the_token_itself(cls, taps: int) -> int:
        if taps and taps % 2 == 0:
            raise ValueError(f"must be odd, or 0 for no convolution, not {taps}")
        return taps


def reference(
    query: Values, key: Values, value: Values, landmarks: int, iterations: int, filters: Values | None = None
) -> Values:
    """The core on [heads, n, head_dim], n a multiple of `landmarks`; `filters` is [heads, taps]."""
    heads, _, e = query.shape
    q, k = query * e**-0.25, key * e**-0.25
    few_q, few_k = (x.reshape(heads, landmarks, -1, e).mean(axis=2) for x in (q, k))
    left, middle, right = (
        _softmax(x @ np.swapaxes(y, -1, -2)) for x, y in ((q, few_k), (few_q, few_k), (few_q, k))
    )
    result = left @ pseudo_inverse(middle, iterations) @ (right @ value)
    if filters is not None:
        result += np.stack([_convolved(v, taps) for v, taps in zip(value, filters, strict=True)])
    return np.asarray(result)


def pseudo_inverse(a: Values, iterations: int) -> Values:
    """Of each of the matrices [heads, m, m] with positive elements."""
    one = np.eye(a.shape[-1])
    z = np.swapaxes(a, -1, -2) / a.sum(axis=-2).max()
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * one - az @ (15 * one - az @ (7 * one - az))) / 4
    return np.asarray(z)


def _softmax(scores: Values) -> Values:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _convolved(x: Values, taps: Values) -> Values:
    around = np.pad(x, ((len(taps) // 2, len(taps) // 2), (0, 0)))
    return np.asarray(sum(tap * around[i : i + len(x)] for i, tap in enumerate(taps)))


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Nystrom) -> Tensor:
    """The sublayer; raises `InputError` where causal, or with more landmarks than tokens."""
    require_both_ways(site, p.kind, "each landmark is a mean of tokens, later ones too")
    tokens, m, heads = x.shape[1], p.landmarks, site.heads
    if m > tokens:
        raise InputError(
            f"attention `nystrom` has {m} landmarks, more than the {tokens} tokens there are: set "
            "`landmarks` to at most that"
        )
    whole = padded(b, x, m)
    query, key, value = project(b, whole, site)
    if m == tokens:
        context = attention_core(b, query, key, value, heads)
    else:
        context = _through_landmarks(b, query, key, value, heads, p, masked=whole is not x)
    if p.taps:
        filters = b.weight("convolution", (heads.kv_heads, p.taps))
        skip = b.depthwise("value_convolution", value, filters)
        context = b.elementwise("context_sum", "add", context, skip)
    return output(b, context, x, site)


def _through_landmarks(
    b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, heads: Heads, p: Nystrom, *, masked: bool
) -> Tensor:
    batch, tokens, _ = query.shape
    m, e, group = p.landmarks, heads.head_dim, heads.heads // heads.kv_heads
    matrices = batch * heads.kv_heads
    query = b.elementwise("query_scaled", "scale", query)
    key = b.elementwise("key_scaled", "scale", key)
    few_query = b.reduce("query_landmarks", "mean", query, (batch, m, heads.width))
    few_key = b.reduce("key_landmarks", "mean", key, (batch, m, heads.kv_width))

    def kernel(name: str, left: Tensor, right: Tensor, rows: int, cols: int, *, mask: bool) -> Tensor:
        size, out = MatmulShape(matrices, group * rows, e, cols), (matrices, group * rows, cols)
        scores = b.matmul(f"{name}_scores", left, right, size, out, transpose_b=True)
        if mask:
            scores = b.elementwise(f"{name}_mask", "minus_infinity_mask", scores)
        return b.softmax(f"{name}_softmax", scores)

    to_landmarks = kernel("to_landmarks", query, few_key, tokens, m, mask=False)
    middle = kernel("middle", few_query, few_key, m, m, mask=False)
    from_landmarks = kernel("from_landmarks", few_query, key, m, tokens, mask=masked)
    inverse = _inverse(b, middle, batch * heads.heads, p)
    size = MatmulShape(batch * heads.heads, tokens, m, m)
    weights = b.matmul("weights", to_landmarks, inverse, size, (batch * heads.heads, tokens, m))
    size = MatmulShape(matrices, group * m, tokens, e)
    few_value = b.matmul("landmark_values", from_landmarks, value, size, (batch, m, heads.width))
    size = MatmulShape(batch * heads.heads, tokens, m, e)
    return b.matmul("context", weights, few_value, size, (batch, tokens, heads.width))


def _inverse(b: GraphBuilder, a: Tensor, matrices: int, p: Nystrom) -> Tensor:
    """The pseudo-inverse of each of the m x m matrices, by `iterations` steps of four products."""
    m = p.landmarks
    shape, out = MatmulShape(matrices, m, m, m), (matrices, m, m)
    sums = b.reduce("column_sums", "sum", a, (matrices, m))
    z = b.divide("inverse_begun", a, b.reduce("largest_sum", "max", sums, (1,)))
    for i in range(p.iterations):
        with b.scope(f"inverse{i}", weights=""):
            az = b.matmul("az", a, z, shape, out)
            inner = b.elementwise("seven_minus", "identity_minus", az)
            inner = b.matmul("second", az, inner, shape, out)
            inner = b.elementwise("fifteen_minus", "identity_minus", inner)
            inner = b.matmul("third", az, inner, shape, out)
            inner = b.elementwise("thirteen_minus", "identity_minus", inner)
            quarter = b.elementwise("quarter", "scale", z)
            z = b.matmul("z", quarter, inner, shape, out)
    return z


MECHANISM = register(
    Mechanism(
        kind="nystrom",
        title="Nyströmformer",
        taxonomy=("memory", "downsampling"),
        complexity="O(n m)",
        citation="Xiong et al., Nyströmformer, arXiv:2102.03902",
        oracle="transformers 4.57.6, NystromformerSelfAttention",
        parameters=Nystrom,
        lower=lower,
        causal=False,
    )
)
