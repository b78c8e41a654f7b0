"""Reading descriptions: YAML with positions, dotted overrides, and errors that point home.

The lowest layer. `arch` and `workloads` both read descriptions through it, so that a mistake in either kind
of file is reported the same way.
"""
