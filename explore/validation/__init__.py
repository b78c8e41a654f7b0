"""Suites of measured figures, and what tilewright predicts of them."""
