"""A sparse-attention unit that splits its array between a dense and a sparse part of the scores."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from tilewright.arch.block import Count
from tilewright.arch.sparse_unit import Unit


class ViTCoD(Unit):
    """Reorders tokens so that keys which many queries see come first, works on those as dense columns with a
    part of the lines of PEs and on the scattered rest with the others, and reads queries and keys from memory
    compressed across heads (You et al., "ViTCoD", HPCA 2023, arXiv:2210.09573). A row of PEs is a line."""

    kind: Literal["vitcod"]
    dense_above: Count = 50
    """A key that more queries than this see is a global token, whose column is worked on as a dense one."""
    abreast: Count = 3
    """Heads side by side, an equal part of every line each."""
    encoded: Count | None = None
    """Heads' worth of Q and of K that memory holds in place of `abreast`; by default Q and K are stored as
    they are."""
    keys: Count = 16
    """Keys, and as many queries, whose rows are loaded at a time."""
    stores_context: bool = True
    """Whether the context goes to DRAM; if not, it stays in the output buffer for what follows."""

    @model_validator(mode="after")
    def _encodes_to_less(self) -> ViTCoD:
        if self.encoded is not None and self.encoded >= self.abreast:
            raise ValueError(
                f"`encoded` ({self.encoded}) must be less than `abreast` ({self.abreast}); leave it out if "
                "Q and K are stored as they are"
            )
        return self

    @property
    def heads_abreast(self) -> int:
        """As `abreast` says."""
        return self.abreast
