"""Einsum of one or two operands: a transpose, a sum, a product of matrices, or one element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from tilewright.workloads.onnx_lowering import Lowering, NotUnderstoodError, Ref, turned
from tilewright.workloads.onnx_nodes import attribute
from tilewright.workloads.onnx_products import product
from tilewright.workloads.operators import MatmulShape

if TYPE_CHECKING:
    from onnx import NodeProto


class Equation(NamedTuple):
    """An equation with a letter for every axis; those of `...` are called 0, 1, 2, …, the last one 0."""

    terms: tuple[str, ...]
    result: str


def parse(text: str, ranks: Sequence[int]) -> Equation:
    """The equation for operands of these ranks.

    >>> parse("...nd,...dm", (3, 3))
    Equation(terms=('0nd', '0dm'), result='0mn')
    """
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise NotUnderstoodError(f"has {len(ranks)} operands and {len(terms)} in its equation {text!r}")
    spare = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    most = max((n for term, n in zip(terms, spare, strict=True) if "..." in term), default=0)
    dots = "".join(str(each) for each in reversed(range(most)))
    terms = [term.replace("...", dots[most - n :] if n else "") for term, n in zip(terms, spare, strict=True)]
    if not arrow:
        letters = "".join(terms)
        once = sorted(each for each in set(letters) if letters.count(each) == 1 and not each.isdigit())
        right = "..." + "".join(once)
    result = right.replace("...", dots)
    fits = all(len(term) == rank for term, rank in zip(terms, ranks, strict=True))
    if not fits or not set(result) <= set("".join(terms)):
        raise NotUnderstoodError(f"has an equation that is none of its operands ({text})")
    return Equation(tuple(terms), result)


def lower_einsum(it: Lowering, node: NodeProto) -> None:
    """Raises `NotUnderstoodError` for three operands and more, diagonals and broadcasting."""
    text = attribute(node, "equation", b"").decode()
    if len(node.input) > 2:
        raise NotUnderstoodError(f"has {len(node.input)} operands ({text}); one or two are known")
    refs = [it.plain(it.ref(name), name) for name in node.input]
    terms, result = parse(text, [len(ref.shape) for ref in refs])
    if any(len(set(term)) < len(term) for term in (*terms, result)):
        raise NotUnderstoodError(f"takes a diagonal ({text})")
    sizes: dict[str, int] = {}
    for term, ref in zip(terms, refs, strict=True):
        for letter, size in zip(term, ref.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise NotUnderstoodError(f"broadcasts axis {letter} ({text})")
    if len(refs) == 1:
        _one(it, node, terms[0], result, refs[0])
    else:
        _two(it, node, terms, result, refs, sizes)


def _one(it: Lowering, node: NodeProto, term: str, result: str, ref: Ref) -> None:
    rest, made = _summed(it, node, term, set(result), ref, 0)
    it.refs[node.output[0]] = turned(made, [rest.index(letter) for letter in result])


def _summed(
    it: Lowering, node: NodeProto, term: str, kept: set[str], ref: Ref, index: int
) -> tuple[str, Ref]:
    """The operand summed over the axes that nothing else has."""
    rest = "".join(letter for letter in term if letter in kept)
    if rest == term:
        return term, ref
    shape = tuple(size for letter, size in zip(term, ref.shape, strict=True) if letter in kept)
    whole = it.full(ref, node.input[index])
    made = it.b.reduce(it.new(f"{it.label(node)}.sum"), "sum", whole, shape or (1,))
    return rest, Ref(made, shape)


def _two(
    it: Lowering,
    node: NodeProto,
    terms: tuple[str, ...],
    result: str,
    refs: Sequence[Ref],
    sizes: dict[str, int],
) -> None:
    constant = [it.values[name].constant for name in node.input]
    order = (1, 0) if constant[0] and not constant[1] else (0, 1)  # the weight is B
    sides = []
    for index, other in (order, order[::-1]):
        kept = set(terms[other]) | set(result)
        sides.append((_summed(it, node, terms[index], kept, refs[index], index), node.input[index]))
    ((left, a), first), ((right, b), second) = sides
    batch = [letter for letter in result if letter in left and letter in right]
    m, n = ([x for x in result if x in side and x not in batch] for side in (left, right))
    k = [letter for letter in left if letter in right and letter not in batch]
    if not k and not (m and n):
        _multiplied(it, node, (a, first), (b, second))
        return
    a = turned(a, [left.index(letter) for letter in (*batch, *m, *k)])
    b = turned(b, [right.index(letter) for letter in (*batch, *k, *n)])
    a, b = replace(a, tensor=it.full(a, first)), replace(b, tensor=it.full(b, second))
    b = replace(b, stored=it.values[second].constant)
    shape = MatmulShape(*(prod(sizes[letter] for letter in axes) for axes in (batch, m, k, n)))
    out = tuple(sizes[letter] for letter in result)
    it.set(node, product(it, it.name(node), a, b, shape, out or (1,)))


def _multiplied(it: Lowering, node: NodeProto, *operands: tuple[Ref, str]) -> None:
    """Element by element, the operand with more of them first."""
    (large, name), (small, _) = sorted(operands, key=lambda each: -each[0].elements)
    out = it.values[node.output[0]].shape
    made = it.b.elementwise(it.name(node), "multiply", it.full(large, name), small.tensor)
    it.set(node, replace(made, shape=out or (1,)))
