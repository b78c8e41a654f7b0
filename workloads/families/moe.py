"""Mixtures of experts of LLaMA's shape: Mixtral, Qwen1.5-MoE, Qwen3-MoE.

Jiang et al., "Mixtral of Experts", arXiv:2401.04088; Shazeer et al., arXiv:1701.06538. Which expert a token
goes to depends on the data; here tokens are spread over the experts as evenly as whole tokens allow. With
fewer choices than experts, each choice is another expert.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size
from tilewright.workloads.families.llama import CausalModel
from tilewright.workloads.layers import gated_feed_forward
from tilewright.workloads.operators import MatmulShape, Tensor


class MixtureOfExperts(CausalModel):
    """A LLaMA-like model whose feed-forward network is a choice of `active_experts` out of `experts`."""

    family: Literal["moe"] = "moe"
    experts: Size
    active_experts: Size
    """Experts that each token goes to."""
    expert_ffn: Size
    """Width of one expert's feed-forward network."""
    shared_ffn: Size | None = None
    """Width of a gated network that every token goes through as well, with a gate of its own (Qwen)."""
    renormalize: bool = True
    """Whether the chosen experts' weights are scaled to add up to 1."""

    @field_validator("active_experts")
    @classmethod
    def _choices_exist(cls, active_experts: int, info: ValidationInfo) -> int:
        experts = info.data.get("experts")
        if experts is not None and active_experts > experts:
            raise ValueError(f"must not exceed `experts` ({experts}), which {active_experts} does")
        return active_experts

    def feed_forward(self, b: GraphBuilder, x: Tensor) -> Tensor:
        """Router, experts, weighted sum, and the shared expert."""
        with b.scope("moe"):
            probabilities = b.softmax("router_softmax", b.linear("router", x, self.experts, bias=False))
            weights, indices = b.topk("router_topk", probabilities, self.active_experts)
            if self.renormalize:
                weights = b.renormalize("router_renormalize", weights)
            parts = tuple(
                self._experts(b, x, indices, experts, rows, suffix)
                for experts, rows, suffix in even_split(weights.elements, self.experts)
            )
            routed = b.combine("combine", parts, weights, x.shape)
            return routed if self.shared_ffn is None else self._with_shared(b, x, routed, self.shared_ffn)

    def _experts(
        self, b: GraphBuilder, x: Tensor, indices: Tensor, experts: int, rows: int, suffix: str
    ) -> Tensor:
        sent = b.gather(f"dispatch{suffix}", "dispatch", (x, indices), (experts, rows, self.d))
        up_shape = MatmulShape(experts, rows, self.d, self.expert_ffn)
        hidden = (experts, rows, self.expert_ffn)
        gate_weight = b.weight("experts.gate.weight", (self.experts, self.d, self.expert_ffn))
        up_weight = b.weight("experts.up.weight", (self.experts, self.d, self.expert_ffn))
        down_weight = b.weight("experts.down.weight", (self.experts, self.expert_ffn, self.d))
        gate = b.matmul(f"gate{suffix}", sent, gate_weight, up_shape, hidden)
        gate = b.elementwise(f"act{suffix}", self.act, gate)
        up = b.matmul(f"up{suffix}", sent, up_weight, up_shape, hidden)
        product = b.elementwise(f"gated{suffix}", "multiply", gate, up)
        down_shape = MatmulShape(experts, rows, self.expert_ffn, self.d)
        return b.matmul(f"down{suffix}", product, down_weight, down_shape, (experts, rows, self.d))

    def _with_shared(self, b: GraphBuilder, x: Tensor, routed: Tensor, width: int) -> Tensor:
        with b.scope("shared"):
            shared = gated_feed_forward(b, x, width, self.act)
            gate = b.elementwise("gate_sigmoid", "sigmoid", b.linear("gate", x, 1, bias=False))
            scaled = b.elementwise("scaled", "multiply", shared, gate)
        return b.elementwise("sum", "add", routed, scaled)


def even_split(choices: int, experts: int) -> list[tuple[int, int, str]]:
    """(experts, tokens of each, suffix of their operators' names) for `choices` tokens' choices in all.

    >>> even_split(256, 8), even_split(2, 8), even_split(20, 8)
    ([(8, 32, '')], [(2, 1, '')], [(4, 3, '_busier'), (4, 2, '_quieter')])
    """
    rows, busier = divmod(choices, experts)
    if not busier:
        return [(experts, rows, "")]
    if not rows:
        return [(busier, 1, "")]
    return [(busier, rows + 1, "_busier"), (experts - busier, rows, "_quieter")]
