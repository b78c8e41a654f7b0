"""Points at random: each once, without remembering any."""

import tracemalloc
from collections import Counter
from itertools import islice
from math import prod

from hypothesis import given
from hypothesis import strategies as st

from tilewright.explore.evaluation.points import Axis, grid, grid_size
from tilewright.explore.space.draws import Numbered, Seen, Shuffled, shuffled_points

KINDS = Axis("kind", ("dense", "window", "low-rank"))
CONDITIONAL = (
    KINDS,
    Axis("rows", (8, 16)),
    Axis("window", (64, 128, 256), when=(("kind", ("window",)),)),
    Axis("rank", (32, 64), when=(("kind", ("low-rank", "window")), ("rows", (16,)))),
    Axis("deep", (1, 2), when=(("rank", (64,)),)),
)


@st.composite
def axes(draw: st.DrawFn) -> list[Axis]:
    """Up to five axes, of which later ones may hang on earlier ones."""
    found: list[Axis] = []
    for number in range(draw(st.integers(1, 5))):
        values = tuple(range(draw(st.integers(1, 4))))
        when = []
        for other in found:
            if draw(st.integers(0, 3)) == 0:
                when.append((other.key, tuple(draw(st.sets(st.sampled_from(other.values), min_size=1)))))
        found.append(Axis(f"key{number}", values, when=tuple(when)))
    return found


@given(axes())
def test_numbers_are_the_points_of_the_grid(axes: list[Axis]) -> None:
    """Each point has one number, conditions of conditions included."""
    numbered = Numbered(axes)
    found = [tuple(numbered.at(number).items()) for number in range(numbered.size)]
    assert sorted(found) == sorted(point.values for point in grid(axes))
    assert numbered.size == grid_size(axes)


def test_large_conditional_spaces_are_counted_not_walked() -> None:
    """3^40 times a conditional tail: the last number is the last point."""
    wide = [Axis(f"key{number}", (0, 1, 2)) for number in range(40)]
    last = Axis("last", (7, 8), when=(("key0", (2,)),))
    numbered = Numbered([*wide, last])
    assert numbered.size == 3**39 * (1 + 1 + 2)
    assert numbered.at(numbered.size - 1) == {**{axis.key: 2 for axis in wide}, "last": 8}


@given(st.integers(1, 3000), st.integers(0, 2**40))
def test_a_shuffle_is_a_permutation(size: int, seed: int) -> None:
    """Every number once, whatever the size."""
    order = Shuffled(size, seed)
    assert sorted(order[place] for place in range(size)) == list(range(size))


@given(st.integers(2**64, 2**1200), st.integers(0, 2**32))
def test_a_shuffle_of_a_huge_space_repeats_nothing(size: int, seed: int) -> None:
    """Also where a number has a thousand bits."""
    order = Shuffled(size, seed)
    some = [order[place] for place in range(50)]
    assert len(set(some)) == 50
    assert all(0 <= number < size for number in some)


def test_shuffles_look_random() -> None:
    """Over 3,000 seeds of a space of 5 points, each point is first, and each is followed by each other, about
    equally often: chi-square below its 99.9 % quantile."""
    orders = [[Shuffled(5, seed)[place] for place in range(2)] for seed in range(3000)]
    firsts = Counter(first for first, _ in orders)
    pairs = Counter(map(tuple, orders))
    assert sum((firsts[n] - 600) ** 2 / 600 for n in range(5)) < 18.5  # 4 degrees of freedom
    assert len(pairs) == 20
    assert sum((count - 150) ** 2 / 150 for count in pairs.values()) < 43.8  # 19 degrees


def test_random_points_of_a_conditional_grid_are_its_points() -> None:
    """Each once, and then an end; another seed, another order."""
    one, two = (list(shuffled_points(CONDITIONAL, seed)) for seed in (1, 2))
    assert one != two
    assert sorted(map(hash, one)) == sorted(map(hash, two)) == sorted(map(hash, grid(CONDITIONAL)))
    assert one == list(shuffled_points(CONDITIONAL, 1))


def test_intervals_come_back_with_other_numbers() -> None:
    """Of two kinds, one of which has an interval, the other is drawn once only, and no point twice."""
    mixed = (Axis("kind", ("a", "b")), Axis("x", (), 0.5, 1.5, when=(("kind", ("b",)),)))
    some = list(islice(shuffled_points(mixed, 3), 500))
    assert len(set(some)) == 500
    kinds = Counter(dict(point.values)["kind"] for point in some)
    assert kinds == {"a": 1, "b": 499}
    xs = [value for point in some for key, value in point.values if key == "x"]
    assert all(isinstance(x, float) and 0.5 <= x < 1.5 for x in xs)
    assert 0.95 < sum(map(float, map(str, xs))) / len(xs) < 1.05


def test_memory_does_not_grow_with_points() -> None:
    """10,000 points at random hold no more than 400 did."""
    large = [Axis(f"key{number}", tuple(range(64))) for number in range(8)]
    assert prod(len(axis.values) for axis in large) == 2**48
    source = shuffled_points(large, 0)
    tracemalloc.start()
    for _ in islice(source, 400):
        pass
    before = tracemalloc.get_traced_memory()[0]
    for _ in islice(source, 10_000):
        pass
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000


def test_what_was_seen_is_known() -> None:
    """No name is new twice; of 20,000 new ones none is taken for an old one."""
    seen = Seen()
    names = [f'{{"arch.array.rows":{number}}}' for number in range(20_000)]
    assert all(seen.add(name) for name in names)
    assert not any(seen.add(name) for name in names)
