"""Attention through masks that somebody else made: a `.npy` file of what each head of each layer may see.

For instance the masks that ViTCoD (You et al., arXiv:2210.09573) prunes DeiT-Tiny's attention to, which come
with tilewright as `vitcod-deit-tiny-0.95` (see `masks/README.md`). The file holds booleans (or 0 and 1) as
[n, n], [heads, n, n] or [layers, heads, n, n], an axis of queries before one of keys; each layer of a model
takes its own. Load imbalance between heads and rows follows from the masks: a blocked kernel computes every
block that holds a pair. The `masked` kernel leaves all scores in place for a sparse-attention unit to skip.

Per layer of n tokens and width d: 4 n d^2 MACs of projections (with as many KV heads as heads), 2 e per pair
of a head, and an exponential per pair.
"""

from __future__ import annotations

from importlib.resources import files
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
from tilewright.workloads.layers import Heads, attention_core
from tilewright.workloads.operators import Tensor
from tilewright.workloads.pairs import Pairs

Mask = NDArray[np.bool_]


class MaskFile(Blocked):
    """Attention through a mask from a file."""

    kind: Literal["mask_file"] = "mask_file"
    path: str
    """The `.npy` file, or the name of a mask that comes with tilewright."""
    marks: Literal["seen", "hidden"] = "seen"
    """What 1 (or True) means: that a query sees a key, or that it doesn't."""
    layer: Annotated[int, Field(ge=0)] | Literal["all"] | None = None
    """Which layer's masks, where the file has several; by default each layer takes its own. `all`: those of
    all layers, one after another, as heads of one layer."""
    head: Annotated[int, Field(ge=0)] | None = None
    """Which head's mask all heads of a layer take; by default each its own."""
    kernel: Literal["blocks", "masked"] = "blocks"
    """`blocks`: whole blocks are computed that hold a pair. `masked`: all scores are there and hidden ones
    are masked, so that a sparse-attention unit of the accelerator can skip them (`block` means nothing)."""

    def of_layer(self, number: int) -> MaskFile:
        """With that layer's masks, if the file has several and none was named."""
        return self.model_copy(update={"layer": number}) if self.layer is None and self._several() else self

    def _several(self) -> bool:
        try:
            return _read(self.path).ndim == 4
        except InputError:  # said again, with its place, where the masks are needed
            return False


def shipped() -> list[str]:
    """Names of the masks that come with tilewright, sorted."""
    return sorted(file.name.removesuffix(".npy") for file in _MASKS.iterdir() if file.name.endswith(".npy"))


_MASKS = files("tilewright.workloads.attention") / "masks"


def _read(path: str) -> NDArray[np.generic]:
    """What the file holds. Raises `InputError` if it can't be read."""
    try:
        if path in shipped():
            with (_MASKS / f"{path}.npy").open("rb") as file:
                return np.asarray(np.load(file, allow_pickle=False))
        return np.asarray(np.load(Path(path), allow_pickle=False))
    except OSError as error:
        raise InputError(
            f"attention.path: can't read {path!r}: {error.strerror or error} (masks that come with "
            f"tilewright: {', '.join(shipped())})"
        ) from None
    except (ValueError, EOFError):
        raise InputError(
            f"attention.path: {path!r} is not a .npy file of booleans; write one with numpy.save"
        ) from None


def load(p: MaskFile, heads: int, tokens: int) -> list[Mask]:
    """The masks of a layer, True where seen: one for all heads, or one for each. Raises `InputError` if the
    file can't be read, has other sizes, or hides every key from a query."""
    masks = _read(p.path)
    if masks.ndim == 2:
        masks = masks[None]
    if p.head is not None:
        masks = _of_head(p, masks)
    if masks.ndim == 4:
        masks = _all_layers(p, masks, heads) if p.layer == "all" else masks[_layer(p, len(masks))]
    if masks.ndim != 3 or masks.shape[1:] != (tokens, tokens) or len(masks) not in (1, heads):
        raise InputError(
            f"attention.path: {p.path} holds masks of shape {masks.shape}, not ({tokens}, {tokens}) for all "
            f"or ({heads}, {tokens}, {tokens}) for each of {heads} heads of {tokens} tokens"
        )
    if not np.isin(masks, (0, 1)).all():
        raise InputError(f"attention.path: {p.path} holds values other than 0 and 1")
    seen = [mask.astype(bool) == (p.marks == "seen") for mask in masks]
    _refuse_blind(p, seen)
    return seen


def _refuse_blind(p: MaskFile, masks: list[Mask]) -> None:
    """Raise `InputError` if a query sees nothing: it has no softmax."""
    for head, mask in enumerate(masks):
        blind = np.flatnonzero(~mask.any(axis=1))
        if len(blind):
            where = f"query {blind[0]} of head {head}" + ("" if p.layer is None else f", layer {p.layer}")
            other = "hidden" if p.marks == "seen" else "seen"
            raise InputError(
                f"attention.path: {p.path} hides every key from {where}; let it see one, itself for "
                f"instance, or say `marks: {other}` if that is what its 1 means"
            )


def _of_head(p: MaskFile, masks: NDArray[np.generic]) -> NDArray[np.generic]:
    """One head's, with the axis of heads left."""
    count = masks.shape[-3] if masks.ndim > 2 else 1
    if p.head is None or p.head >= count:
        raise InputError(f"attention.head: {p.path} has heads 0 to {count - 1}, not {p.head}")
    return masks[..., p.head : p.head + 1, :, :]


def _all_layers(p: MaskFile, masks: NDArray[np.generic], heads: int) -> NDArray[np.generic]:
    """[heads, n, n], a layer's share of the heads after another's."""
    layers, own = masks.shape[:2]
    each = heads // layers
    if each * layers != heads or own not in (1, each):
        raise InputError(
            f"attention.layer: {p.path} has {layers} layers of {own} heads, {layers * own} in all; the "
            f"workload has {heads}"
        )
    return np.repeat(masks, each // own, axis=1).reshape(heads, *masks.shape[2:])


def _layer(p: MaskFile, layers: int) -> int:
    if p.layer is None and layers > 1:
        raise InputError(f"attention.layer: {p.path} has layers 0 to {layers - 1}; say which one")
    number = 0 if p.layer is None or p.layer == "all" else p.layer
    if number >= layers:
        raise InputError(
            f"attention.layer: {p.path} has layers 0 to {layers - 1}, not {p.layer}; it needs masks for each "
            "layer of the model, or `layer` says whose all of them take"
        )
    return number


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
    if p.kernel == "masked":
        return output(b, masked(b, query, key, value, site.heads, p, masks), x, site)
    made = [from_mask(mask) for mask in masks]
    return output(b, pattern_attention(b, query, key, value, site.heads, made, p.block), x, site)


def masked(
    b: GraphBuilder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: Heads,
    p: MaskFile,
    masks: list[Mask],
) -> Tensor:
    """Whole scores, softmax and context, with `masks` for a unit to look up; they are those of `p`. Returns
    [batch, tokens, heads * head_dim]."""
    seen = sum(int(mask.sum()) for mask in masks) * (heads.heads // len(masks))
    tokens = query.shape[1]
    pairs = Pairs(heads, tokens, tokens, masks=p)
    return attention_core(b, query, key, value, heads, "scale_mask", pairs=pairs, seen=seen)


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
