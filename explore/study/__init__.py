"""Reading a study: rows, fronts, comparisons."""
