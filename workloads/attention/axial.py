"""Axial attention: along the rows of an image, and along its columns.

Ho, Kalchbrenner, Weissenborn and Salimans, "Axial Attention in Multidimensional Transformers",
arXiv:1912.12180. n = height * width tokens in raster order; each axis has projections of its own, and the two
results are added (`compose: sum`) or the second works on the first's (`sequence`). Causal: both axes masked,
so that a token sees earlier ones of its row and of its column. (The paper's decoder also shifts a context
down by a row, which is a matter of the model, not of a layer.)

Per layer of width d: 8 n d^2 MACs of projections, 2 n (height + width) d of the core, causal the half and the
diagonal of it useful; h n (height + width) exponentials.
"""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.core import attend
from tilewright.workloads.attention.patterns import (
    Pattern,
    block_diagonal,
    pattern_attention,
    strided,
)
from tilewright.workloads.attention.sublayer import output, project, require_no_rope
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import Tensor


class Axial(Parameters):
    """Attention along both axes of an image."""

    kind: Literal["axial"] = "axial"
    width: Annotated[int, Field(gt=0)] | None = None
    """Tokens of a row; by default the root of all tokens, which must be whole."""
    compose: Literal["sum", "sequence"] = "sum"
    """How the two axes come together."""


def row_width(tokens: int, p: Axial) -> int:
    """Tokens of a row. Raises `InputError` unless the tokens are whole rows."""
    width = p.width or isqrt(tokens)
    if tokens % width or (p.width is None and width * width != tokens):
        shape = f"whole rows of {width} tokens" if p.width else "a square"
        raise InputError(
            f"attention `axial` needs an image: {tokens} tokens are not {shape}; set `width` to a divisor"
        )
    return width


def patterns(tokens: int, width: int, *, causal: bool) -> tuple[Pattern, Pattern]:
    """Of the rows, and of the columns, whose tokens are `width` apart."""
    ahead = 0 if causal else tokens
    return block_diagonal(tokens, width, causal=causal), strided(tokens, width, tokens, ahead)


def reference(
    query: Values, key: Values, value: Values, width: int, axis: Literal["row", "column"], *, causal: bool
) -> Values:
    """One axis: `query`, `key`, `value` [heads, n, e] of that axis' projections; returns [heads, n, e]."""
    i, j = np.mgrid[: query.shape[1], : query.shape[1]]
    mask = i // width == j // width if axis == "row" else i % width == j % width
    return attend(query, key, value, mask & (j <= i) if causal else mask)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Axial) -> Tensor:
    """Two sublayers, one for each axis. Raises `InputError` if the tokens are no image."""
    require_no_rope(site, p.kind, "tokens have two coordinates")
    tokens = x.shape[1]
    width = row_width(tokens, p)
    rows, columns = patterns(tokens, width, causal=site.causal)
    along_rows = _axis(b, "rows", x, site, rows, width)
    second = along_rows if p.compose == "sequence" else x
    along_columns = _axis(b, "columns", second, site, columns, tokens // width)
    if p.compose == "sequence":
        return along_columns
    return b.elementwise("sum", "add", along_rows, along_columns)


def _axis(b: GraphBuilder, name: str, x: Tensor, site: Site, pattern: Pattern, length: int) -> Tensor:
    with b.scope(name):
        query, key, value = project(b, x, site)
        context = pattern_attention(b, query, key, value, site.heads, [pattern], length)
        return output(b, context, x, site)


MECHANISM = register(
    Mechanism(
        kind="axial",
        title="Axial Transformer",
        taxonomy=("fixed pattern",),
        complexity="O(N sqrt N)",
        citation='Ho et al., "Axial Attention in Multidimensional Transformers", arXiv:1912.12180',
        oracle="axial-attention 0.6.1, AxialAttention",
        parameters=Axial,
        lower=lower,
    )
)
