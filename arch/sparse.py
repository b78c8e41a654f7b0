"""Sparse-attention units: one frozen pydantic model per kind, `attention_unit: {kind: …}` in the YAML file.

What a unit does with queries and keys, and what that costs, is in `tilewright.dataflows.sparse`, in the
module of the same name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tilewright.arch.block import Count, Cycles
from tilewright.arch.sparse_gather import Gather, Lsh
from tilewright.arch.sparse_predictors import Dota, Energon, Fact, Sanger
from tilewright.arch.sparse_search import A3, AccelTran, Elsa, SpAtten
from tilewright.arch.sparse_split import ViTCoD
from tilewright.arch.sparse_unit import Unit as Unit
from tilewright.arch.streaming_unit import Streaming


class BlockSkip(Unit):
    """Skips the blocks of scores in which no pair is kept; what is kept is known beforehand (a mask)."""

    kind: Literal["block_skip"]
    rows: Count = 64
    """Queries of a block."""
    cols: Count = 64
    """Keys of a block."""
    sequencer_cycles: Cycles = 1
    """To look a block up and pass on to the next, also if it is skipped."""


AttentionUnit = Annotated[
    BlockSkip
    | Gather
    | Lsh
    | Sanger
    | Energon
    | Dota
    | Fact
    | A3
    | Elsa
    | SpAtten
    | AccelTran
    | ViTCoD
    | Streaming,
    Field(discriminator="kind"),
]
