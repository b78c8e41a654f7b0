"""What a mixture of experts computes; `tilewright.workloads.families.moe` says what it costs.

Shazeer et al., arXiv:1701.06538; with gated experts and the softmax before the choice, Jiang et al., "Mixtral
of Experts", arXiv:2401.04088.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def reference(
    x: Values,
    router: Values,
    experts: tuple[Values, Values, Values],
    active: int,
    *,
    renormalize: bool = True,
) -> Values:
    """sum_e p_e(x) down_e(silu(gate_e x) * up_e x) over the `active` experts of the largest probability.

    `x` [tokens, d], `router` [d, experts], `experts` = gate and up [experts, d, f] and down [experts, f, d];
    returns [tokens, d]. p = softmax(x router), scaled to add up to 1 over the chosen ones if `renormalize`.
    """
    logits = x @ router
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    chosen = np.argsort(-weights, axis=-1, kind="stable")[:, :active]
    share = np.take_along_axis(weights, chosen, axis=-1)
    if renormalize:
        share /= share.sum(axis=-1, keepdims=True)
    out = np.zeros_like(x)
    for expert, (gate, up, down) in enumerate(zip(*experts, strict=True)):
        tokens, place = np.nonzero(chosen == expert)
        hidden = x[tokens] @ gate
        hidden = hidden / (1 + np.exp(-hidden)) * (x[tokens] @ up)
        out[tokens] += share[tokens, place, None] * (hidden @ down)
    return out
