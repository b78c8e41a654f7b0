"""The model families: each a description and its lowering."""
