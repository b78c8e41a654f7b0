"""H2O: what is kept of a prompt, against the package kvpress; attention against PyTorch.

Run as a program, this writes the frozen case of `tests/data/oracles/h2o.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.oracles.kvpress_scores import PROMPT, SLOTS, largest, press, scored
from tilewright.workloads.attention.h2o import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "h2o.npz"
HEAVY = RECENT = SLOTS // 2


def oracle() -> dict[str, np.ndarray]:
    """Inputs, and the package's scores, in float64."""
    return scored(press("observed_attention_press", "ObservedAttentionPress"), seed=0)


def test_what_is_kept_of_a_prompt_equals_the_package() -> None:
    """The tokens with the largest public scores stay, and the prompt's own attention is exact."""
    case = oracle()
    out, histories = reference(case["query"], case["key"], case["value"], PROMPT, HEAVY, RECENT)
    # The package has the mean over the tokens that can see one; the paper the sum, over two heads here.
    score = case["score"] * np.arange(PROMPT, 0, -1)
    score[:, -RECENT:] = np.inf
    assert [set(history[0]) for history in histories] == largest(score)
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
