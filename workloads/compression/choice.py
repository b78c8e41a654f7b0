"""Which compressions a model has had: `compression: [{kind: quantise, weights: int4}, {kind: prune_layers}]`.

Techniques are found by their kind (see `workloads.registry`): the built-in ones in the modules of this
package, a user's through entry points of the group `tilewright.compression` (each is called as its kind and
names a `Compression`) or by calling `register` before loading.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from tilewright.workloads.compression.base import COMPRESSIONS, Compression, Technique
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.registry import KindField
from tilewright.workloads.rules import check


def compressions() -> dict[str, Compression]:
    """Every technique by kind, sorted."""
    return COMPRESSIONS.all()


FIELD = KindField("compression", lambda kind: COMPRESSIONS.find(kind).technique, compressions)

CompressionChoice = Annotated[Technique, FIELD]
"""A technique with its parameters, described by its `kind` and those."""


def compress(graph: OperatorGraph, choices: Iterable[Technique]) -> OperatorGraph:
    """The graph after each of the techniques, in order; checked against `workloads.rules` after each.

    Raises `InputError` where a technique can't work on what the ones before it left.
    """
    for choice in choices:
        graph = choice.transform(graph)
        check(graph)
    return graph
