"""Image Transformer: right numbers, and the costs of its closed forms."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.graphs import exps, one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.image import MECHANISM, Image, pattern, reference
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "image.npz"
small = st.integers(1, 4)
sizes = st.integers(1, 40)
lowered = partial(one_layer, MECHANISM, batch=2, causal=True)


@pytest.mark.parametrize(
    ("name", "p"),
    [
        ("one", Image(query_block=4, memory=6)),
        (
            "two",
            Image(form="2d", columns=6, block_rows=2, block_columns=3, memory_rows=3, memory_columns=2),
        ),
    ],
)
def test_reference_equals_the_public_implementation(name: str, p: Image) -> None:
    """Frozen inputs and output of torch's scaled_dot_product_attention with the paper's masks."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[f"{name}_{part}"] for part in ("query", "key", "value", "out"))
    np.testing.assert_allclose(reference(query, key, value, p), out, rtol=0, atol=1e-14)


def gathered(graph: OperatorGraph, function: str) -> int:
    return sum(
        dict(op.primitives)["move"]
        for op in graph.operators
        if op.kind == "gather" and op.function == function
    )


@given(n=sizes, length=sizes, memory=st.integers(0, 40))
def test_the_pattern_is_the_definition(n: int, length: int, memory: int) -> None:
    """j <= i, and j no more than `memory` before the block of i."""
    i, j = np.mgrid[:n, :n]
    mask = (j <= i) & (j >= i // length * length - memory)
    np.testing.assert_array_equal(pattern(n, Image(query_block=length, memory=memory)).dense(), mask)


@given(blocks=st.integers(33, 40), length=small, group=small, kv=small, e=small)
def test_costs_have_the_closed_form(blocks: int, length: int, group: int, kv: int, e: int) -> None:
    """Blocks of l queries by 2 l keys, the first padded to as many: 2 n (2 l) d MACs, h n 2 l exponentials;
    useful, of the own block the pairs up to the diagonal."""
    n, heads = blocks * length, Heads(group * kv, kv, e)
    d = heads.width
    graph = lowered(Image(query_block=length, memory=length), heads, n)
    projections = 2 * n * d * d + 2 * n * d * heads.kv_width
    assert graph.macs == 2 * (projections + 2 * n * 2 * length * d)
    assert exps(graph) == 2 * heads.heads * n * 2 * length
    pairs = (blocks - 1) * length * length + blocks * length * (length + 1) // 2
    assert graph.useful_macs == 2 * (projections + 2 * d * pairs)


@st.composite
def rectangles(draw: st.DrawFn) -> Image:
    """Any 2-D form of small sizes, of given or of square images."""
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    across = draw(st.none() | st.integers(1, 4))
    return Image(
        form="2d",
        columns=across and across * columns,
        block_rows=rows,
        block_columns=columns,
        memory_rows=draw(st.integers(0, 5)),
        memory_columns=draw(st.integers(0, 5)),
    )


def brute_force(n: int, p: Image) -> np.ndarray:
    """The mask of the 2-D form, pixel by pixel in the order of generation."""
    high, wide, row = p.block_rows, p.block_columns, p.width(n)
    order = [
        (y + v, x + u)
        for y in range(0, n, high)
        for x in range(0, row, wide)
        for v in range(high)
        for u in range(wide)
    ][:n]
    mask = np.zeros((n, n), dtype=bool)
    for i, (y, x) in enumerate(order):
        top, left = y - y % high, x - x % wide
        for j, (v, u) in enumerate(order[: i + 1]):
            across = left - p.memory_columns <= u < left + wide + p.memory_columns
            mask[i, j] = across and top - p.memory_rows <= v < top + high
    return mask


@given(n=sizes, p=rectangles())
def test_the_2d_pattern_is_the_definition(n: int, p: Image) -> None:
    """Of the block with its memory around it, what was generated before, or the position itself."""
    np.testing.assert_array_equal(pattern(n, p).dense(), brute_force(n, p))


@given(n=sizes, p=rectangles(), group=small, kv=small, e=small)
def test_costs_of_the_2d_form_have_the_closed_form(n: int, p: Image, group: int, kv: int, e: int) -> None:
    """n in whole blocks by l_m = (h_q + h_m) (w_q + 2 w_m) keys: 2 n l_m d MACs, h n l_m exponentials,
    2 n / l_q l_m keys and values gathered; useful are the pairs of the definition."""
    heads = Heads(group * kv, kv, e)
    d, size = heads.width, p.block_rows * p.block_columns
    area = (p.block_rows + p.memory_rows) * (p.block_columns + 2 * p.memory_columns)
    whole = -(-n // size) * size
    graph = lowered(p, heads, n)
    projections = whole * d * d + n * d * d + 2 * whole * d * heads.kv_width
    assert graph.macs == 2 * (projections + 2 * whole * area * d)
    assert exps(graph) == 2 * heads.heads * whole * area
    copies = 2 * (whole // size) * area * heads.kv_width if p.memory_rows or p.memory_columns else 0
    assert gathered(graph, "blocks") == 2 * copies
    assert graph.useful_macs == 2 * (projections + 2 * d * int(brute_force(n, p).sum()))


@given(n=sizes, p=rectangles(), group=small, kv=small, e=small)
def test_a_decoded_position_pays_for_what_it_sees(n: int, p: Image, group: int, kv: int, e: int) -> None:
    """In both forms one exponential for each head and key of the mask's last row, which the cache holds."""
    heads = Heads(group * kv, kv, e)
    p = p if p.columns else p.model_copy(update={"columns": p.block_columns})
    for form, mask in ((p, brute_force(n, p)), (Image(query_block=4, memory=6), None)):
        row = pattern(n, form).dense()[-1] if mask is None else mask[-1]
        graph = lowered(form, heads, n, decode=True)
        assert exps(graph) == 2 * heads.heads * row.sum()
        cache = next(t for name, t in graph.tensors.items() if name.endswith("key_cache"))
        assert cache.shape[1] >= n - row.argmax()


@pytest.mark.parametrize("p", [Image(), Image(form="2d"), Image(form="2d", columns=96)])
def test_a_million_positions_lower(p: Image) -> None:
    """Nothing in the lowering grows with the square of the positions."""
    assert len(lowered(p, Heads(2, 2, 8), 1 << 20).operators) < 20


@pytest.mark.parametrize(("n", "columns"), [(1, 16), (256, 16), (257, 32), (1024, 32), (1 << 20, 1024)])
def test_an_image_is_square_by_default(n: int, columns: int) -> None:
    """The smallest square that holds all positions, in whole blocks of 16 columns."""
    assert Image(form="2d").width(n) == columns


def test_an_encoder_is_refused() -> None:
    """The memory lies before."""
    with pytest.raises(InputError) as error:
        lowered(Image(), Heads(1, 1, 4), 8, causal=False)
    assert str(error.value) == ("attention `image` can't look both ways: its memory lies before the queries")


def test_decoding_needs_the_width_of_the_image() -> None:
    """A square image of as many positions as there are would change with each of them."""
    with pytest.raises(InputError) as error:
        lowered(Image(form="2d"), Heads(1, 1, 4), 8, decode=True)
    assert str(error.value) == (
        "attention `image` can't take one token at a time without the width of the image: set `columns`"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": 96}, "`columns` is not for `form: 1d`"),
        ({"form": "2d", "memory": 4}, "`memory` is not for `form: 2d`"),
        ({"form": "2d", "columns": 20}, "`columns` (20) must be a multiple of `block_columns` (16)"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(fields: dict[str, object], message: str) -> None:
    """Each form has its own sizes, and rows are whole blocks."""
    with pytest.raises(ValidationError, match=re.escape(message)):
        Image.model_validate(fields)
