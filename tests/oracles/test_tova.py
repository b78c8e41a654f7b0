"""TOVA: what is kept of a prompt, against the package kvpress; attention against PyTorch.

Run as a program, this writes the frozen case of `tests/data/oracles/tova.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.oracles.kvpress_scores import PROMPT, SLOTS, largest, press, scored
from tilewright.workloads.attention.tova import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "tova.npz"


def oracle() -> dict[str, np.ndarray]:
    """Inputs, and the package's scores, in float64."""
    return scored(press("tova_press", "TOVAPress"), seed=2)


def test_what_is_kept_of_a_prompt_equals_the_package() -> None:
    """The tokens with the largest public scores stay in all heads; the prompt's own attention is exact."""
    case = oracle()
    out, history = reference(case["query"], case["key"], case["value"], PROMPT, SLOTS)
    assert all(set(history[0]) == tokens for tokens in largest(case["score"]))
    np.testing.assert_allclose(out[:, :PROMPT], case["attended"], rtol=0, atol=1e-14)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    fresh = oracle()
    with np.load(FROZEN) as frozen:
        assert set(frozen) == set(fresh)
        for key, value in fresh.items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
