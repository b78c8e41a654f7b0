"""Sizes of the attention unit's streams and queues that no parameter changes (docs/attention-unit.md).

What can be chosen, and the widths that follow, is `tilewright.arch.streaming_unit.UnitSizes`.
"""

from __future__ import annotations

SCALE_BITS = 16
"""Bits of the run-time scale."""
WORD_TILES = 16
"""K tiles to a word of the bitmap."""
TILE_FIFO_DEPTH = 4
"""Tiles that the sequencer may be ahead."""
