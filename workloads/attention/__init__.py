"""Attention mechanisms, one module each, all of one shape; see `base`."""
