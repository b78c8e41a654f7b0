"""Operators, operator graphs, models and importers."""
