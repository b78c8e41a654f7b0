"""Pruning in a cascade: which layers make a stack, how much each of them keeps, and the graph that is left.

In SpAtten (Wang et al., HPCA 2021, arXiv:2012.09852) a token or head that is pruned stays pruned in all later
layers, so that layers which the workload holds once, with a count, are no longer equal. `cascaded` writes
them out for such a unit, tells each layer's `Pairs` which layers came before, and takes the pruned tokens and
heads out of the projections and feed-forward networks as well (`survivors`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil

from tilewright.arch.sparse_search import SpAtten
from tilewright.arch.sparse_unit import Unit
from tilewright.dataflows.sparse.survivors import LayerLeft, without_pruned
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import Operator
from tilewright.workloads.pairs import Pairs


@dataclass(frozen=True)
class Schedule:
    """What each layer of a stack keeps."""

    tokens: tuple[int, ...]
    heads: tuple[int, ...]


def schedule(unit: SpAtten, tokens: int, heads: int, layers: int) -> Schedule:
    """How many of the tokens and heads each layer keeps; never more than the layer before.

    Raises `InputError` if so few layers can't have the means that the unit asks for.
    """
    return Schedule(
        _counts(tokens, _shares(unit, "token", layers)), _counts(heads, _shares(unit, "head", layers))
    )


def _counts(total: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(max(1, ceil(round(share * total, 9))) for share in shares)


def _shares(unit: SpAtten, what: str, layers: int) -> tuple[float, ...]:
    """All in front, then a line that falls around the mean of the rest; a layer alone has the mean itself."""
    mean, front = {"token": (unit.token_keep, unit.token_front), "head": (unit.head_keep, unit.head_front)}[
        what
    ]
    if layers == 1 or mean == 1:
        return (mean,) * layers
    whole = min(max(1, ceil(round(front * layers, 9))), layers - 1)
    rest = layers - whole
    average = (mean * layers - whole) / rest
    if average <= 0:
        raise InputError(
            f"attention_unit.{what}_keep: a mean of {mean:g} over {layers} layers can't be had, of which the "
            f"first {whole} keep{'s' if whole == 1 else ''} all; give more than {whole / layers:.3g}, or a "
            f"smaller `{what}_front`"
        )
    swing = unit.fall * min(average, 1 - average)
    steps = max(rest - 1, 1)
    line = [average + swing * (steps - 2 * number) / steps for number in range(rest)]
    return (*[1.0] * whole, *(line if rest > 1 else [average]))


def cascaded(graph: OperatorGraph, unit: Unit | None) -> OperatorGraph:
    """The graph as a unit runs it that prunes in a cascade; for every other unit, and where nothing is pruned
    or no two layers follow each other, the graph itself.

    What is pruned is left where it is and not read: operands may have more rows than an operator's shape.
    """
    if not isinstance(unit, SpAtten) or unit.token_keep == unit.head_keep == 1:
        return graph
    plain = graph.expand()
    stacks = [stack for stack in _stacks(plain) if len(stack) > 1]
    if not stacks:
        return graph
    for stack in stacks:
        plain = _told(plain, stack)
    for stack in stacks:
        plain = without_pruned(plain, _left(plain, stack, unit))
    return plain


def _stacks(graph: OperatorGraph) -> list[list[int]]:
    """Indices of the operators that compute scores, those of the layers of a stack together, in order."""
    found: dict[tuple[object, ...], list[int]] = {}
    for index, op in enumerate(graph.operators):
        if op.pairs is not None:
            found.setdefault(_stack_of(op, op.pairs), []).append(index)
    return list(found.values())


def _stack_of(op: Operator, pairs: Pairs) -> tuple[object, ...]:
    """Equal for the layers of a stack: their names differ in numbers only, behind `layer` if it is in
    there (a number before it is a step's), and their sizes do not."""
    at = max(op.name.find("layer"), 0)
    name = op.name[:at] + re.sub(r"\d+", "#", op.name[at:])
    return name, pairs.heads, pairs.queries, pairs.keys, pairs.causal, pairs.window


def _told(graph: OperatorGraph, stack: list[int]) -> OperatorGraph:
    """With what came before in the stack in each layer's pairs."""
    operators = list(graph.operators)
    own = [_pairs(graph, index) for index in stack]
    for number, index in enumerate(stack):
        earlier = tuple((each, len(list(equal))) for each, equal in groupby(own[:number]))
        told = replace(own[number], earlier=earlier, layers=len(stack))
        operators[index] = replace(operators[index], pairs=told)
    return replace(graph, operators=tuple(operators))


def _left(graph: OperatorGraph, stack: list[int], unit: SpAtten) -> list[LayerLeft]:
    pairs = _pairs(graph, stack[0])
    plan = schedule(unit, pairs.keys, pairs.heads.heads, len(stack))
    return [LayerLeft(*each) for each in zip(stack, plan.tokens, plan.heads, strict=True)]


def _pairs(graph: OperatorGraph, index: int) -> Pairs:
    pairs = graph.operators[index].pairs
    assert pairs is not None
    return pairs
