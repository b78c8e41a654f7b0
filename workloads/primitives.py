"""What a vector operator costs: its primitive operations, counted from its definition.

Each function returns the totals over a whole operator, sorted by name, with zero counts left out. Counts
follow the textbook form of each definition; a reciprocal is one `divide`, erf and the logistic function cost
one `tanh`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def online_softmax(rows: int, cols: int, tiles: int, width: int) -> Primitives:
    """The softmax of rows that come in `tiles` pieces each, and what it does to the sums [rows, width] that
    its weights make with the values (Milakov and Gimelshein, arXiv:1805.02867; FlashAttention).

    Per score 1 compare, 1 add (subtract the maximum), 1 exp, 1 add (sum). Per row and piece the new maximum
    (1 compare), exp(old - new) (1 add, 1 exp) and the sum (1 multiply, 1 add); per element of the sums and
    piece 1 multiply and 1 add; at the end 1 divide a row and 1 multiply an element.
    """
    scores, steps, sums = rows * cols, rows * tiles, rows * width
    return totals(
        {
            "compare": scores + steps,
            "add": 2 * scores + 2 * steps + sums * tiles,
            "exp": scores + steps,
            "multiply": steps + sums * tiles + sums,
            "divide": rows,
        }
    )


def softmax_lse(rows: int, cols: int) -> Primitives:
    """A softmax that also puts out max + log(sum) of each row: 1 logarithm and 1 add per row more.

    A logarithm is a look-up and an interpolation like an exponential, and counts as one `exp`.
    """
    return add(softmax(rows, cols), totals({"add": rows, "exp": rows}))


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


def unit_norm(rows: int, cols: int) -> Primitives:
    """x / sqrt(sum(x^2) + eps), row by row.

    Per row of n: squares n multiply, sum n add, 1 add (eps), 1 sqrt, 1 divide, scale n multiply.
    """
    elements = rows * cols
    return totals({"add": elements + rows, "multiply": 2 * elements, "sqrt": rows, "divide": rows})


NORMS = MappingProxyType({"layernorm": layernorm, "rmsnorm": rmsnorm, "unit_norm": unit_norm})

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
        "self_mask": {"compare": 1, "add": 1},  # s + (value where the positions are equal)
        "causal_self_mask": {"compare": 2, "add": 1},  # the same, and another value where the key is later
        "scale_causal_self_mask": {"multiply": 1, "compare": 2, "add": 1},
        # log(max(s * scale, 0) + eps) / temperature; a logarithm counts as an exponential
        "sinkhorn_logits": {"multiply": 2, "compare": 1, "add": 1, "exp": 1},
        "exp": {"exp": 1},
        "scale_position_mask": {"multiply": 1, "compare": 1, "add": 1},  # causal, by positions that are data
        "rope": {"multiply": 2, "add": 1},  # x cos + rotate(x) sin; the rotation is addressing
        # kernels and low rank
        "mask": {"multiply": 1},  # s * (0 or 1)
        "minus_infinity_mask": {"add": 1},  # s + (0 or -inf)
        "elu_plus_one": {"compare": 1, "exp": 1, "add": 1},  # x + 1 where x > 0, else exp(x)
        "relu_offset": {"compare": 1, "add": 1},  # max(x, 0) + eps
        # (exp(x - |x|^2/2 - max) + eps) m^-1/2, the square and the maximum given
        "positive_feature": {"add": 3, "exp": 1, "multiply": 1},
        "identity_minus": {"add": 1},  # c I - x
        "nonorm": {"multiply": 1, "add": 1},  # gamma x + beta (MobileBERT)
        # what imported graphs write out
        "compare": {"compare": 1},
        "extreme": {"compare": 1},  # max(x, y), min(x, y)
        "clip": {"compare": 2},
        "round": {"multiply": 1, "add": 1, "compare": 2},  # clip(floor(x / scale + 1/2))
        "where": {"compare": 1},  # x or y, by a third operand
        "negate": {"add": 1},  # also |x|
        "reciprocal": {"divide": 1},
        "square": {"multiply": 1},
        "cube": {"multiply": 2},
        "sqrt": {"sqrt": 1},
        "sine": {"tanh": 1},  # sines and cosines are look-ups and interpolations like tanh
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


def sort(rows: int, cols: int) -> Primitives:
    """Merge sort of each row with its indices: ceil(log2 n) passes of n compare and n move."""
    passes = max(1, (cols - 1).bit_length())
    return totals({"compare": rows * cols * passes, "move": rows * cols * passes})


def topk(rows: int, cols: int, k: int) -> Primitives:
    """The k largest of each row by k scans: rows * cols * k compare (an arg-max is k = 1); or by sorting the
    rows where that takes fewer operations."""
    scans, sorting = totals({"compare": rows * cols * k}), sort(rows, cols)
    return min(scans, sorting, key=lambda work: sum(count for _, count in work))


def renormalize(rows: int, cols: int) -> Primitives:
    """x / sum(x), row by row: n - 1 add, 1 divide (reciprocal), n multiply per row of n."""
    return totals({"add": rows * (cols - 1), "divide": rows, "multiply": rows * cols})


def scan(rows: int, cols: int) -> Primitives:
    """Running sums along each row, each started with what the one before left: 1 add per element."""
    return totals({"add": rows * cols})


def divide(elements: int, divisors: int) -> Primitives:
    """Elements divided by divisors that they share: a reciprocal each, and 1 multiply per element."""
    return totals({"divide": divisors, "multiply": elements})


def window_mean(elements: int, taps: int) -> Primitives:
    """A moving average: taps - 1 add and 1 multiply each."""
    return totals({"multiply": elements, "add": elements * (taps - 1)})


def window_sum(elements: int, taps: int) -> Primitives:
    """A weighted sum of `taps` elements (a depthwise convolution): taps multiply and taps - 1 add each."""
    return totals({"multiply": elements * taps, "add": elements * (taps - 1)})


def weighted_sum(elements: int) -> Primitives:
    """Adding weighted rows into an accumulator: 1 multiply and 1 add per element."""
    return totals({"multiply": elements, "add": elements})


def bias(elements: int) -> Primitives:
    """A matmul's bias: 1 add per output element."""
    return totals({"add": elements})


_REDUCTIONS: Mapping[str, Callable[[int], Mapping[Primitive, int]]] = MappingProxyType(
    {
        "sum": lambda n: {"add": n - 1 or 1},
        "mean": lambda n: {"add": n - 1, "multiply": 1},
        "max": lambda n: {"compare": n - 1 or 1},
        "square": lambda n: {"multiply": n + 1, "add": n - 1},
        "lse": lambda n: {"compare": n, "add": 2 * n, "exp": n + 1},
    }
)


def reduce(function: str, rows: int, cols: int) -> Primitives:
    """One result per row of n: `sum` n - 1 add; `mean` 1 multiply more; `max` n - 1 compare; `square`,
    half the sum of squares: n multiply, n - 1 add, 1 multiply; `lse`, the logarithm of the sum of
    exponentials: n compare, n add and n exp as in a softmax, n add, 1 logarithm."""
    return totals({name: rows * count for name, count in _REDUCTIONS[function](cols).items()})


def add(*parts: Primitives) -> Primitives:
    """The sum of several counts."""
    counts: dict[Primitive, int] = {}
    for name, count in (pair for part in parts for pair in part):
        counts[name] = counts.get(name, 0) + count
    return totals(counts)
