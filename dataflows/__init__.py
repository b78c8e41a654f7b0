"""How an operator is tiled and scheduled on an accelerator."""
