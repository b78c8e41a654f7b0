"""The primitives of scans, shared divisions, windows and squares, against the loops that they stand for."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tilewright.workloads import primitives

small = st.integers(1, 9)


@given(rows=small, cols=small)
def test_a_scan_adds_every_element_once(rows: int, cols: int) -> None:
    """An exclusive running sum puts out what it has, then adds the element."""
    counts: Counter[str] = Counter()
    for _ in range(rows):
        for _ in range(cols):
            counts["add"] += 1
    assert dict(primitives.scan(rows, cols)) == counts


@given(rows=small, cols=small)
def test_a_shared_divisor_is_inverted_once(rows: int, cols: int) -> None:
    """Rows divided by a number each: a reciprocal a row, a product an element."""
    assert dict(primitives.divide(rows * cols, rows)) == {"divide": rows, "multiply": rows * cols}


@given(elements=small, taps=small)
def test_a_window_sum_is_a_dot_product_per_element(elements: int, taps: int) -> None:
    """`taps` products and one sum fewer; a single tap only scales."""
    counts = {"multiply": elements * taps} | ({"add": elements * (taps - 1)} if taps > 1 else {})
    assert dict(primitives.window_sum(elements, taps)) == counts


@given(rows=small, cols=small)
def test_half_a_square_sum_is_counted_from_its_definition(rows: int, cols: int) -> None:
    """|x|^2 / 2: n squares, n - 1 sums, and the half."""
    counts = {"multiply": rows * (cols + 1)} | ({"add": rows * (cols - 1)} if cols > 1 else {})
    assert dict(primitives.reduce("square", rows, cols)) == counts
