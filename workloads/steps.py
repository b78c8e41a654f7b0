"""The steps of a decoder's run: a prefill, decode steps, or one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import MatmulShape, Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """One pass through the decoder."""

    scope: str
    """What stands before the operators' names: `prefill`, `decode3`, or nothing for a lone step."""
    tokens: int
    """Tokens of each sequence that are worked on."""
    context: int
    """Tokens of each sequence that the attention can see; the KV cache holds them all afterwards."""
    decode: bool
    """Whether keys and values come from the KV cache."""
    last_only: bool
    """Whether only the last position's next token is wanted (the arg-max), or else all logits."""


def steps(tokens: int, phase: Literal["prefill", "decode"], generate: int) -> Iterator[Step]:
    """The steps of a run over `tokens` tokens (see `description.DecoderRun`)."""
    if phase == "decode":
        yield Step("", 1, tokens, decode=True, last_only=False)
    elif not generate:
        yield Step("", tokens, tokens, decode=False, last_only=False)
    else:
        yield Step("prefill", tokens, tokens, decode=False, last_only=True)
        for number in range(1, generate):
            yield Step(f"decode{number}", 1, tokens + number, decode=True, last_only=True)


def language_head(
    b: GraphBuilder, x: Tensor, step: Step, vocab: int, tied_to: Tensor | None = None
) -> Tensor:
    """Logits of all positions [batch, tokens, vocab], or the arg-max of the last one [batch, 1].

    `tied_to`: the embedding table [vocab, width] that serves as the head's weight.
    """
    batch, tokens, width = x.shape
    if step.last_only and tokens > 1:
        x = b.gather("last_token", "select", (x,), (batch, 1, width))
    if tied_to is None:
        logits = b.linear("lm_head", x, vocab, bias=False)
    else:
        shape = MatmulShape(1, x.elements // width, width, vocab)
        logits = b.matmul("lm_head", x, tied_to, shape, (*x.shape[:-1], vocab), transpose_b=True)
    return b.argmax("next_token", logits) if step.last_only else logits
