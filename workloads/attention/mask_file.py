"""Attention through masks that somebody else made: a `.npy` file of what each head of each layer may see.

For instance the masks that ViTCoD (You et al., arXiv:2210.09573) prunes DeiT's attention to. The file holds
booleans (or 0 and 1), True where seen, as [n, n], [heads, n, n] or [layers, heads, n, n]. Load imbalance
between heads and rows follows from the masks: a blocked kernel computes every block that holds a pair.

Per layer of n tokens and width d: 4 n d^2 MACs of projections (with as many KV heads as heads), 2 e per pair
of a head, and an exponential per pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.core import attend
from tilewright.workloads.attention.patterns import Blocked, from_mask, pattern_attention
from tilewright.workloads.attention.sublayer import output, project
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import Tensor

Mask = NDArray[np.bool_]


class MaskFile(Blocked):
    """Attention through a mask from a file."""

    kind: Literal["mask_file"] = "mask_file"
    path: str
    """The `.npy` file."""
    layer: Annotated[int, Field(ge=0)] = 0
    """Which layer's masks, where the file has several."""


def load(p: MaskFile, heads: int, tokens: int) -> list[Mask]:
    """The masks of a layer: one for all heads, or one for each. Raises `InputError` if the file can't be read
    or has other sizes."""
    try:
        masks = np.load(Path(p.path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"attention.path: can't read {p.path!r} as a .npy file: {error}") from None
    if masks.ndim == 4:
        if p.layer >= len(masks):
            raise InputError(f"attention.layer: {p.path} has layers 0 to {len(masks) - 1}, not {p.layer}")
        masks = masks[p.layer]
    if masks.ndim == 2:
        masks = masks[None]
    if masks.ndim != 3 or masks.shape[1:] != (tokens, tokens) or len(masks) not in (1, heads):
        raise InputError(
            f"attention.path: {p.path} holds masks of shape {masks.shape}, not ({tokens}, {tokens}) for all "
            f"or ({heads}, {tokens}, {tokens}) for each of {heads} heads of {tokens} tokens"
        )
    if not np.isin(masks, (0, 1)).all():
        raise InputError(f"attention.path: {p.path} holds values other than 0 and 1")
    return [mask.astype(bool) for mask in masks]


def reference(query: Values, key: Values, value: Values, masks: Mask) -> Values:
    """`query`, `key`, `value` [heads, n, e], `masks` [heads, n, n] or [n, n]; returns [heads, n, e]."""
    return attend(query, key, value, masks)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: MaskFile) -> Tensor:
    """Projections, then the blocks that hold a pair, head by head. Raises `InputError` if a causal layer's
    mask lets a token see a later one."""
    masks = load(p, site.heads.heads, x.shape[1])
    if site.causal and any(np.triu(mask, 1).any() for mask in masks):
        raise InputError(f"attention.path: {p.path} lets tokens see later ones, but the layer is causal")
    query, key, value = project(b, x, site)
    made = [from_mask(mask) for mask in masks]
    return output(b, pattern_attention(b, query, key, value, site.heads, made, p.block), x, site)


MECHANISM = register(
    Mechanism(
        kind="mask_file",
        title="Masks from a file",
        taxonomy=("sparse",),
        complexity="O(nnz)",
        citation="whoever made the masks; for instance You et al., ViTCoD, arXiv:2210.09573",
        oracle="torch 2.13.0, scaled_dot_product_attention",
        parameters=MaskFile,
        lower=lower,
    )
)
