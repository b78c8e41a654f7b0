"""What the tests of H2O, SnapKV and TOVA share: drawn cases, masked attention by brute force, caches."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tilewright.workloads.attention.base import Values
from tilewright.workloads.graph import OperatorGraph


def cached(graph: OperatorGraph) -> dict[str, tuple[int, ...]]:
    """Shapes of the caches that the graph writes."""
    names = {name for op in graph.operators for name in op.outputs}
    return {name: graph.tensors[name].shape for name in names if graph.tensors[name].role == "kv_cache"}


def masked(query: Values, key: Values, value: Values, sees: Values) -> tuple[Values, Values]:
    """Attention of all tokens at once, where `sees` [kv_heads, n, n] allows it, and its weights."""
    share = len(query) // len(key)
    key, value, sees = (x.repeat(share, axis=0) for x in (key, value, sees))
    scores = np.where(sees, query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ value, weights


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Values, Values, Values, int]:
    """Queries, keys and values of grouped heads, and the length of the prompt."""
    kv_heads, share, tokens = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(2, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    query = rng.normal(size=(kv_heads * share, tokens, 3))
    key, value = rng.normal(size=(2, kv_heads, tokens, 3))
    return query, key, value, draw(st.integers(1, tokens))
