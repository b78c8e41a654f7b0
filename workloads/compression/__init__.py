"""Compression techniques, as passes from operator graph to operator graph: `compression: [{kind: lora}]`."""
