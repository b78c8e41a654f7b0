"""Sparse-attention units: what each kind does about the pairs that do not matter, and what that costs."""
