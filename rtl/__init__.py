"""The attention unit in Amaranth (not built yet)."""
