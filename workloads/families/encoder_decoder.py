"""How encoder-decoders run: the encoder once, then the decoder's steps over its cached keys and values."""

from __future__ import annotations

from abc import abstractmethod

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import DecoderRun
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import Tensor
from tilewright.workloads.steps import Step, steps


class EncoderDecoder(DecoderRun):
    """`phase` and `generate` are the decoder's. With `phase: decode` the encoder does not run: its keys and
    values are in the cache."""

    def lower(self) -> OperatorGraph:
        """The encoder, then the decoder's steps one after the other."""
        b = GraphBuilder(self.title, self.element)
        out: list[Tensor] = []
        memory = self.encode(b) if self.phase == "prefill" else None
        tokens: Tensor | None = None
        for step in steps(self.target_tokens, self.phase, self.generate):
            with b.scope(step.scope, weights=""):
                name = f"{step.scope}.target_tokens".lstrip(".")
                tokens = tokens or b.input(name, (self.batch, step.tokens), "index")
                tokens = self.decode(b, tokens, None if step.decode else memory, step)
                out.append(tokens)
        return b.finish(*out, family=str(getattr(self, "family", "")))

    @property
    @abstractmethod
    def target_tokens(self) -> int:
        """Tokens of each sequence in the decoder, the default worked out."""

    @abstractmethod
    def encode(self, b: GraphBuilder) -> Tensor:
        """The encoder's output [batch, seq, d]."""

    @abstractmethod
    def decode(self, b: GraphBuilder, tokens: Tensor, memory: Tensor | None, step: Step) -> Tensor:
        """One step of the decoder; without `memory` its keys and values come from the cache."""
