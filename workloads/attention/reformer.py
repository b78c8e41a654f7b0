"""Reformer: attention among tokens that hash alike.

Kitaev, Kaiser and Levskaya, "Reformer: The Efficient Transformer", arXiv:2001.04451, section 2.

Queries and keys are one projection; keys have unit norm, and scores are not scaled. In each of r rounds,
random rotations hash every token into a bucket, tokens are sorted by bucket, the sorted list is cut in chunks
of c, and each chunk attends to itself and the one before it, the first one to the last. Rounds are added up,
weighted by the sums of exponentials behind them. The variant is that of trax and of Hugging Face: all pairs
within the two chunks count, whatever their buckets, and a pair met in several rounds counts several times.

Per layer, for n tokens (filled up to a multiple of c), width d, h heads, buckets in digits f_1, f_2, …:
hashing n d r sum(f_i) / 2 MACs, sort of h r n keys, gathers of 3 r n d elements and a scatter of r n d (with
r > 1 of h r n more), core 4 r n c d MACs and 2 h r n c exponentials. With n <= c it is dense attention with
shared queries and keys. Buckets fill as the data have it, chunks are equally long: the cost does not depend
on the data.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.sublayer import output, padded, require_own_heads
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size
from tilewright.workloads.operators import MatmulShape, Tensor

Indices = NDArray[np.intp]

_SELF, _FUTURE = -1e5, -1e9
"""Scores of a token with itself, which it sees only if there is nothing else, and with a later one."""


def _even(buckets: int) -> int:
    if buckets % 2:
        raise ValueError(f"must be even, since a rotation and its opposite share a row; not {buckets}")
    return buckets


class Reformer(Parameters):
    """LSH attention: shared queries and keys, hashed into buckets, sorted, attending chunk by chunk."""

    kind: Literal["reformer"] = "reformer"
    chunk: Size = 128
    """Tokens of a chunk of the sorted list."""
    rounds: Annotated[Size, Field(le=64)] = 8
    """Hashes; with 8 the paper comes close to full attention."""
    buckets: tuple[Annotated[Size, AfterValidator(_even)], ...] | None = Field(default=None, min_length=1)
    """Buckets of one hash, as digits of a number: `[16, 32]` is 512 buckets for the rotations of 48. By
    default a power of two around 2 tokens / chunk, in two digits if it is large."""

    def digits(self, tokens: int) -> tuple[int, ...]:
        """Buckets of each digit; the default follows Hugging Face's `ReformerConfig`."""
        if self.buckets is not None:
            return self.buckets
        bits = (2 * (tokens // self.chunk)).bit_length() - 1
        if 2**bits <= 2 * max(int((tokens // self.chunk) ** 0.5), self.chunk):
            return (2**bits,)
        return 2 ** (bits // 2), 2 ** (bits - bits // 2)


def reference(
    query_key: Values, value: Values, rotations: Values, digits: tuple[int, ...], chunk: int, causal: bool
) -> Values:
    """Attention [heads, tokens, width] of `query_key` and `value` of that shape, tokens a multiple of `chunk`
    or at most one.

    `rotations`: [heads, width, rounds, sum(digits) / 2].
    """
    heads, tokens, width = query_key.shape
    key = query_key / np.sqrt((query_key**2).sum(-1, keepdims=True) + 1e-6 * width)
    out = np.empty_like(value)
    for head in range(heads):
        if tokens <= chunk:
            everything = np.arange(tokens)[None]
            out[head] = _attend(query_key[head], key[head], value[head], everything, everything, causal)[0][0]
            continue
        buckets = np.stack([_hash(query_key[head] @ r, digits) for r in rotations[head].swapaxes(0, 1)])
        order = np.argsort(buckets, axis=-1, kind="stable")
        rows = order.reshape(-1, chunk)  # of all rounds, one after the other
        seen = np.concatenate([np.roll(rows, 1, axis=0), rows], axis=1)
        sums, lse = _attend(query_key[head], key[head], value[head], rows, seen, causal)
        place = np.argsort(order, axis=-1)
        sums = np.take_along_axis(sums.reshape(*order.shape, width), place[:, :, None], axis=1)
        lse = np.take_along_axis(lse.reshape(order.shape), place, axis=1)
        share = np.exp(lse - np.logaddexp.reduce(lse, axis=0))
        out[head] = (share[:, :, None] * sums).sum(axis=0)
    return out


def _hash(rotated: Values, digits: tuple[int, ...]) -> Values:
    """Bucket of each row: the nearest of the rotated axes and their opposites, digit by digit."""
    bucket = np.zeros(len(rotated))
    start, weight = 0, 1
    for digit in digits:
        axes = rotated[:, start : start + digit // 2]
        bucket += weight * np.argmax(np.concatenate([axes, -axes], axis=1), axis=1)
        start, weight = start + digit // 2, weight * digit
    return bucket


def _attend(
    query: Values, key: Values, value: Values, rows: Indices, seen: Indices, causal: bool
) -> tuple[Values, Values]:
    """Rows `rows` [chunks, c] of the queries attending to `seen` [chunks, s]; also the log-sum-exp."""
    scores = query[rows] @ key[seen].swapaxes(-1, -2)
    asks, offers = rows[:, :, None], seen[:, None, :]
    if causal:
        scores = np.where(offers > asks, _FUTURE, scores)
    scores = np.where(offers == asks, _SELF, scores)
    lse = np.logaddexp.reduce(scores, axis=-1)
    return np.exp(scores - lse[..., None]) @ value[seen], lse


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Reformer) -> Tensor:
    """The sublayer; a sequence that does not fill its chunks is filled up before the projections."""
    heads, tokens, full = site.heads, x.shape[1], x
    require_own_heads(site, "reformer", "queries and keys are one projection")
    if tokens > p.chunk:
        full = padded(b, x, p.chunk)
    query_key = b.linear("query_key", full, heads.width, bias=site.bias.query)
    value = b.linear("value", full, heads.width, bias=site.bias.value)
    if site.rope is not None:
        query_key = b.elementwise("query_key_rope", "rope", query_key, site.rope)
    key = b.norm("unit_keys", query_key, "unit_norm", heads.head_dim)
    if tokens <= p.chunk:
        context = _dense(b, query_key, key, value, site)
    else:
        order = _order(b, query_key, site, p)
        context = _chunked(b, (query_key, key, value), order, site, p, tokens)
    return output(b, context, x, site)


def _order(b: GraphBuilder, query_key: Tensor, site: Site, p: Reformer) -> Tensor:
    """Token positions in the order of their buckets, [batch * heads, rounds, tokens]."""
    batch, tokens, _ = query_key.shape
    heads, width = site.heads.heads, site.heads.head_dim
    hashes = []
    for i, digit in enumerate(p.digits(tokens)):
        cols = p.rounds * digit // 2
        # Drawn once and kept; equal for all layers, as with Hugging Face's `hash_seed`.
        rotations = b.input(f"rotations_{i}.{heads}x{width}x{cols}", (heads, width, cols))
        shape = MatmulShape(heads, batch * tokens, width, cols)
        out = (batch * heads, p.rounds, tokens, digit // 2)
        rotated = b.matmul(f"rotate_{i}", query_key, rotations, shape, out)
        hashes.append(b.argmax(f"bucket_{i}", rotated, signed=True))
    return b.argsort("sort", *hashes)


def _chunked(
    b: GraphBuilder, sources: tuple[Tensor, ...], order: Tensor, site: Site, p: Reformer, tokens: int
) -> Tensor:
    """Attention among the sorted tokens, put back in place; [batch, tokens, width]."""
    batch, filled, width = sources[0].shape
    matrices, head_dim, c = batch * site.heads.heads, site.heads.head_dim, p.chunk
    chunks = matrices * p.rounds * filled // c
    by_bucket = (matrices, p.rounds * filled, head_dim)
    query, key, value = (
        b.gather(f"sorted_{name}", "lookup", (source, order), by_bucket)
        for name, source in zip(("queries", "keys", "values"), sources, strict=True)
    )
    shape = MatmulShape(chunks, c, head_dim, 2 * c)
    scores = b.matmul("scores", query, key, shape, (chunks, c, 2 * c), transpose_b=True, views=True)
    masked = b.elementwise("mask", _mask(site), scores, order)
    shape = MatmulShape(chunks, c, 2 * c, head_dim)
    if p.rounds == 1:
        sums = b.matmul("context", b.softmax("softmax", masked), value, shape, by_bucket, views=True)
        return b.scatter("unsort", sums, order, (batch, tokens, width))
    weights, lse = b.softmax_lse("softmax", masked)
    sums = b.matmul("context", weights, value, shape, by_bucket, views=True)
    unsorted = b.scatter("unsort", sums, order, (batch, p.rounds, tokens, width))
    lse = b.scatter("unsort_lse", lse, order, (matrices, tokens, p.rounds))
    share = b.softmax("round_softmax", lse)
    return b.combine("rounds", (unsorted,), share, (batch, tokens, width))


def _dense(b: GraphBuilder, query_key: Tensor, key: Tensor, value: Tensor, site: Site) -> Tensor:
    batch, tokens, _ = value.shape
    matrices, head_dim = batch * site.heads.heads, site.heads.head_dim
    shape = MatmulShape(matrices, tokens, head_dim, tokens)
    scores = b.matmul("scores", query_key, key, shape, (matrices, tokens, tokens), transpose_b=True)
    weights = b.softmax("softmax", b.elementwise("mask", _mask(site), scores))
    shape = MatmulShape(matrices, tokens, tokens, head_dim)
    return b.matmul("context", weights, value, shape, value.shape)


def _mask(site: Site) -> str:
    return "causal_self_mask" if site.causal else "self_mask"


MECHANISM = register(
    Mechanism(
        kind="reformer",
        title="Reformer",
        taxonomy=("learnable pattern",),
        complexity="O(N log N)",
        citation='Kitaev, Kaiser and Levskaya, "Reformer: The Efficient Transformer", arXiv:2001.04451',
        oracle="transformers 4.57.6, LSHSelfAttention",
        parameters=Reformer,
        lower=lower,
        own_projections=True,
    )
)
