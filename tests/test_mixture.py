"""Mixtures of experts: right numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilewright.workloads.mixture import Values, reference

FROZEN = Path(__file__).parent / "data" / "oracles" / "mixture.npz"
small = st.integers(1, 5)


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs and output of Mixtral's block in transformers 4.57.6 (its router is in float32)."""
    with np.load(FROZEN) as frozen:
        case = dict(frozen)
    made = reference(case["x"], case["router"], (case["gate"], case["up"], case["down"]), active=2)
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=2e-7)


def arrays(seed: int, *shapes: tuple[int, ...]) -> list[Values]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape) for shape in shapes]


@given(n=small, d=small, f=small, experts=small, seed=st.integers(0, 99))
def test_equal_experts_are_one_network(n: int, d: int, f: int, experts: int, seed: int) -> None:
    """With shares that add up to 1, it does not matter which of equal experts a token goes to; without, what
    comes out shrinks to the chosen ones' share."""
    x, router, gate, up, down = arrays(seed, (n, d), (d, experts), (d, f), (d, f), (f, d))
    equal = tuple(np.broadcast_to(part, (experts, *part.shape)) for part in (gate, up, down))
    hidden = x @ gate
    plain = (hidden / (1 + np.exp(-hidden)) * (x @ up)) @ down
    made = reference(x, router, (equal[0], equal[1], equal[2]), active=1)
    np.testing.assert_allclose(made, plain, rtol=1e-12, atol=1e-14)
    made = reference(x, router, (equal[0], equal[1], equal[2]), active=1, renormalize=False)
    powers = np.exp(x @ router)
    share = powers.max(axis=1) / powers.sum(axis=1)
    np.testing.assert_allclose(made, plain * share[:, None], rtol=1e-12, atol=1e-14)


@given(n=small, d=small, f=small, experts=st.integers(2, 5), seed=st.integers(0, 99))
def test_an_expert_that_nobody_chooses_does_not_matter(
    n: int, d: int, f: int, experts: int, seed: int
) -> None:
    """Of the last expert, which no token prefers, the weights may be anything."""
    x, router, *weights = arrays(seed, (n, d), (d, experts), *[(experts, d, f)] * 2, (experts, f, d))
    x, router = abs(x), abs(router)
    router[:, -1] = -1
    gate, up, down = weights
    before = reference(x, router, (gate, up, down), active=experts - 1)
    gate[-1], up[-1], down[-1] = 7, 7, 7
    np.testing.assert_array_equal(reference(x, router, (gate, up, down), active=experts - 1), before)
    assert not np.array_equal(reference(x, router, (gate, up, down), active=experts), before)
