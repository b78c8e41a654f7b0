"""Linformer: keys and values projected along the sequence to k rows.

Wang, Li, Khabsa, Fang and Ma, "Linformer: Self-Attention with Linear Complexity", arXiv:2006.04768.

    K' = E^T K [k, e],  V' = F^T V [k, e],  Y = softmax(Q K'^T e^-1/2) V'

E and F are [n, k] parameters: the sequence has a fixed length. The paper shares them in three degrees, which
`sharing` names; without any, every head has its own pair. All four do the same work.

Per layer: 4 n d^2 (projections) + 2 n k d (E, F) + 2 n k d (core) MACs, h n k exponentials, 2 n k parameters
beyond the projections (headwise).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.sublayer import output, project, require_both_ways
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import MatmulShape, Tensor

Sharing = Literal["none", "headwise", "key_value", "layerwise"]


class Linformer(Parameters):
    """Low-rank attention."""

    kind: Literal["linformer"] = "linformer"
    k: Annotated[int, Field(gt=0)] = 256
    """Rows that keys and values are projected to (paper: 128 for 512 tokens, 256 for 1,024 to 4,096)."""
    sharing: Sharing = "headwise"
    """Who shares E and F: `none`, each head has its own two; `headwise`, a layer has two; `key_value`, a
    layer has one for both; `layerwise`, the model has one."""


def reference(query: Values, key: Values, value: Values, e: Values, f: Values) -> Values:
    """The core: `query`, `key`, `value` [heads, n, head_dim], E and F [n, k] or [heads, n, k]; the result is
    [heads, n, head_dim]."""
    short_key = np.swapaxes(e, -1, -2) @ key
    short_value = np.swapaxes(f, -1, -2) @ value
    scores = query @ np.swapaxes(short_key, -1, -2) / np.sqrt(query.shape[-1])
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True) @ short_value)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Linformer) -> Tensor:
    """The sublayer; raises `InputError` where causal, or if k exceeds the tokens."""
    require_both_ways(site, p.kind, "each projected key mixes all tokens, the later ones too")
    if p.k > x.shape[1]:
        raise InputError(
            f"attention `linformer` projects to k = {p.k} rows, more than the {x.shape[1]} tokens there are: "
            "set `k` to at most that"
        )
    query, key, value = project(b, x, site)
    one = p.sharing in ("key_value", "layerwise")
    key = _shorten(b, "short_key", key, "projection" if one else "key_projection", site, p)
    value = _shorten(b, "short_value", value, "projection" if one else "value_projection", site, p)
    return output(b, attention_core(b, query, key, value, site.heads), x, site)


def _shorten(b: GraphBuilder, name: str, x: Tensor, weight: str, site: Site, p: Linformer) -> Tensor:
    """E^T x: [batch, n, width] -> [batch, k, width]. Sequences share E, and so do heads unless `none`."""
    batch, tokens, width = x.shape
    heads = site.heads.kv_heads if p.sharing == "none" else 1
    if p.sharing == "layerwise":
        weight = f"linformer.{weight}"
    matrix = b.weight(weight, (heads, p.k, tokens), shared=p.sharing == "layerwise")
    shape = MatmulShape(batch * heads, p.k, tokens, width // heads)
    return b.matmul(name, matrix, x, shape, (batch, p.k, width), views=heads > 1)


MECHANISM = register(
    Mechanism(
        kind="linformer",
        title="Linformer",
        taxonomy=("low rank",),
        complexity="O(n k)",
        citation="Wang et al., Linformer: Self-Attention with Linear Complexity, arXiv:2006.04768",
        oracle="linformer 0.2.3, LinformerSelfAttention",
        parameters=Linformer,
        lower=lower,
        causal=False,
    )
)
