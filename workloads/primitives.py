"""What a vector operator costs: its primitive operations, counted from its definition.

Each function returns the totals over a whole operator, sorted by name, with zero counts left out. Counts
follow the textbook form of each definition; a reciprocal is one `divide`, erf and the logistic function cost
one `tanh`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tilewright.workloads.operators import Primitive

Primitives = tuple[tuple[Primitive, int], ...]


def totals(counts: Mapping[Primitive, int]) -> Primitives:
    """The counts as an operator holds them: sorted by name, without zeros."""
    return tuple(sorted((name, count) for name, count in counts.items() if count))


def softmax(rows: int, cols: int) -> Primitives:
    """exp(x - max) / sum, row by row.

    Per row of n: n compare (maximum), n add (subtract it), n exp, n add (sum), 1 divide (reciprocal), n
    multiply.
    """
    elements = rows * cols
    return totals(
        {"compare": elements, "add": 2 * elements, "exp": elements, "divide": rows, "multiply": elements}
    )


def layernorm(rows: int, cols: int) -> Primitives:
    """gamma (x - mean) / sqrt(var + eps) + beta, row by row (Ba et al., arXiv:1607.06450).

    Per row of n: mean n add + 1 multiply; centre n add; variance n multiply + n add + 1 multiply; 1 add
    (eps), 1 sqrt, 1 divide; scale n multiply; gamma n multiply; beta n add.
    """
    elements = rows * cols
    return totals(
        {"add": 4 * elements + rows, "multiply": 3 * elements + 2 * rows, "sqrt": rows, "divide": rows}
    )


def rmsnorm(rows: int, cols: int) -> Primitives:
    """gamma x / sqrt(mean(x^2) + eps), row by row (Zhang and Sennrich, arXiv:1910.07467).

    Per row of n: squares n multiply, sum n add, 1 multiply (mean), 1 add (eps), 1 sqrt, 1 divide, scale n
    multiply, gamma n multiply.
    """
    elements = rows * cols
    return totals({"add": elements + rows, "multiply": 3 * elements + rows, "sqrt": rows, "divide": rows})


NORMS = MappingProxyType({"layernorm": layernorm, "rmsnorm": rmsnorm})

ELEMENTWISE: Mapping[str, Mapping[Primitive, int]] = MappingProxyType(
    {
        # activations
        "relu": {"compare": 1},  # max(x, 0)
        "tanh": {"tanh": 1},
        "sigmoid": {"tanh": 1},
        "gelu": {"tanh": 1, "multiply": 3, "add": 1},  # x * 0.5 * (1 + erf(x / sqrt 2))
        "gelu_new": {"tanh": 1, "multiply": 6, "add": 2},  # 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
        "quick_gelu": {"tanh": 1, "multiply": 2},  # x * sigmoid(1.702 x)
        "silu": {"tanh": 1, "multiply": 1},  # x * sigmoid(x)
        # attention
        "scale": {"multiply": 1},
        "scale_mask": {"multiply": 1, "add": 1},  # s * scale + (0 or -inf)
        "rope": {"multiply": 2, "add": 1},  # x cos + rotate(x) sin; the rotation is addressing
        # arithmetic of two or more tensors; counted per further operand by `elementwise`
        "add": {"add": 1},
        "multiply": {"multiply": 1},
        "mean": {"add": 1, "multiply": 1},  # of two: (x + y) * 0.5
    }
)
"""Primitives per output element of each elementwise function."""

ACTIVATIONS = ("relu", "tanh", "gelu", "gelu_new", "quick_gelu", "silu")


def elementwise(function: str, elements: int, operands: int = 1) -> Primitives:
    """`function` on `elements` output elements; `add` and `multiply` of k operands count k - 1 an element."""
    repeat = max(operands - 1, 1) if function in ("add", "multiply") else 1
    return totals({name: count * elements * repeat for name, count in ELEMENTWISE[function].items()})


def moves(elements: int) -> Primitives:
    """A gather, scatter or layout change of `elements` elements: one `move` each."""
    return totals({"move": elements})


def topk(rows: int, cols: int, k: int) -> Primitives:
    """The k largest of each row by k scans: rows * cols * k compare (an arg-max is k = 1)."""
    return totals({"compare": rows * cols * k})


def renormalize(rows: int, cols: int) -> Primitives:
    """x / sum(x), row by row: n - 1 add, 1 divide (reciprocal), n multiply per row of n."""
    return totals({"add": rows * (cols - 1), "divide": rows, "multiply": rows * cols})


def weighted_sum(elements: int) -> Primitives:
    """Adding weighted rows into an accumulator: 1 multiply and 1 add per element."""
    return totals({"multiply": elements, "add": elements})


def bias(elements: int) -> Primitives:
    """A matmul's bias: 1 add per output element."""
    return totals({"add": elements})
