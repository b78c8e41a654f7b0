"""What training a workload keeps in memory: the activations that the backward pass reads again.

`training_memory` counts them from any operator graph, so for every attention mechanism alike, under the
known ways to keep fewer: recomputing each layer from its input (Chen et al., "Training Deep Nets with
Sublinear Memory Cost", arXiv:1604.06174), reversible layers and a feed-forward network worked on in chunks
(Kitaev et al., "Reformer", arXiv:2001.04451), and attention that keeps a statistic of each row of scores
instead of the scores (Dao et al., "FlashAttention", arXiv:2205.14135). Parameters, their gradients and the
optimizer's state are not counted: none of these changes them.

`attention_memory` is another count, of one attention operation on the GPU that FlashAttention's table 21
was measured on, forward and backward pass together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from tilewright.workloads.graph import OperatorGraph, Repeat
from tilewright.workloads.operators import Operator, Tensor, in_copies

INDEX_BYTES = 4
STATISTIC_BYTES = 4
"""Row statistics are kept in 32 bits."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to hold activations for the backward pass."""

    name: str
    layers: Literal["keep", "recompute", "reversible"] = "keep"
    """Of each repeated layer: `keep` all that its backward pass reads; keep its input only and `recompute`;
    or keep nothing but the last layer's output (two streams of it) and invert layer after layer."""
    fused_attention: bool = False
    """Keep a 32-bit statistic of each row of attention weights, and recompute the weights from it."""
    ffn_chunks: int = 1
    """Parts, one after the other along the tokens, that feed-forward networks are worked on in; with more
    than one, what is inside them is recomputed part by part."""


STRATEGIES = (
    Strategy("keep"),
    Strategy("fused_attention", fused_attention=True),
    Strategy("chunked_ffn", ffn_chunks=8),
    Strategy("recompute", layers="recompute"),
    Strategy("reversible", layers="reversible"),
    Strategy("reversible_chunked", layers="reversible", ffn_chunks=8),
)
"""What `training_report` compares."""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Activations under one strategy."""

    strategy: str
    kept_bytes: int
    """Held from the forward pass until the backward pass has come to them."""
    working_bytes: int
    """At most, of those recomputed in the backward pass."""
    recomputed_macs: int
    """Multiply-accumulates of the forward pass that run a second time."""

    @property
    def total_bytes(self) -> int:
        """Kept and working together: the peak."""
        return self.kept_bytes + self.working_bytes


def training_report(graph: OperatorGraph, element_bytes: int = 2) -> tuple[TrainingMemory, ...]:
    """`training_memory` under each of `STRATEGIES`."""
    return tuple(training_memory(graph, strategy, element_bytes) for strategy in STRATEGIES)


def training_memory(
    graph: OperatorGraph, strategy: Strategy = STRATEGIES[0], element_bytes: int = 2
) -> TrainingMemory:
    """The activations that training on `graph` holds, in elements of `element_bytes` (16 bits by default).

    What each operator's backward pass reads is `saved_tensors`; a tensor that several read is held once.
    Without dropout (its masks would come on top). Layers are the graph's repeated blocks; those that the
    compression pass `reversible` made are inverted, whatever `strategy.layers` says.
    """
    if strategy.ffn_chunks < 1:
        raise ValueError(f"ffn_chunks must be 1 or more, not {strategy.ffn_chunks}")
    tally = _Tally(graph, strategy, element_bytes)
    inverted = _inverted_layers(graph)
    done = {op.name for layer in inverted for op in layer}
    saved, working, macs = _inverted(tally, inverted)
    for block, repeat in graph.blocks():
        whole = strategy.layers == "keep" or repeat is None
        body = (graph.operators[i] for i in block if graph.operators[i].name not in done)
        once = tally.of(body, recomputes_ffn=whole)
        times = 1 if repeat is None else repeat.times
        macs += once.recomputed_macs * times
        working = max(working, once.working_bytes)
        if repeat is None:
            saved |= once.saved
        elif whole:
            saved |= _copies(once.saved, repeat)
        else:
            stream = tally.size(graph.tensors[repeat.carry_in])
            outside = {n: s for n, s in once.saved.items() if not in_copies(n) and n != repeat.carry_in}
            held = times * stream if strategy.layers == "recompute" else 2 * stream
            saved |= outside | {f"{repeat.carry_out} held": held}
            inside = sum(s for n, s in once.saved.items() if n not in outside and n != repeat.carry_in)
            working = max(working, inside + once.working_bytes)
            macs += times * sum(graph.operators[i].macs for i in block)
    return TrainingMemory(strategy.name, sum(saved.values()), working, macs)


def _inverted_layers(graph: OperatorGraph) -> list[list[Operator]]:
    """The operators of each layer of two streams, in order."""
    layers: dict[str, list[Operator]] = {
        f"{scope}.": [] for scope in graph.metadata.get("reversible", "").split()
    }
    for op in graph.operators if layers else ():
        scope = next((scope for scope in layers if op.name.startswith(scope)), None)
        if scope is not None:
            layers[scope].append(op)
    return list(layers.values())


def _inverted(tally: _Tally, layers: Iterable[list[Operator]]) -> tuple[dict[str, int], int, int]:
    """What layers of two streams keep, their working bytes, and the MACs that run again: each is worked out
    from its result, so that of all their activations the two that the stack ends with are kept."""
    kept: dict[str, int] = {}
    working = macs = 0
    tensors = tally.graph.tensors
    for body in layers:
        part = tally.of(body, recomputes_ffn=False)
        made = {name for op in body for name in op.outputs}
        streams = {op.inputs[0] for op in body if op.function == "add" and op.inputs[0] not in made}
        ends = {name for op in body if op.function == "mean" for name in op.inputs}
        outside = {n: s for n, s in part.saved.items() if n in tensors and n not in made | streams}
        kept |= outside | {f"{name} held": tally.size(tensors[name]) for name in ends}
        inside = sum(s for n, s in part.saved.items() if n not in outside and n not in streams)
        working = max(working, inside + part.working_bytes)
        macs += part.recomputed_macs + sum(op.macs for op in body)
    return kept, working, macs


def _copies(saved: Mapping[str, int], repeat: Repeat) -> dict[str, int]:
    """Bytes of what all copies of a layer save, by tensor; the carry between two of them is one tensor."""
    total = {n: size * (repeat.times if in_copies(n) else 1) for n, size in saved.items()}
    if repeat.carry_in in saved and repeat.carry_out not in saved and repeat.times > 1:
        total[f"{repeat.carry_out} between"] = saved[repeat.carry_in] * (repeat.times - 1)
    return total


@dataclass(frozen=True, slots=True)
class _Part:
    """What one run of some operators saves (bytes by tensor) and recomputes."""

    saved: dict[str, int]
    working_bytes: int
    recomputed_macs: int


class _Tally:
    def __init__(self, graph: OperatorGraph, strategy: Strategy, element_bytes: int) -> None:
        self.graph, self.strategy, self.element_bytes = graph, strategy, element_bytes

    def size(self, tensor: Tensor) -> int:
        return tensor.elements * (INDEX_BYTES if tensor.role == "index" else self.element_bytes)

    def of(self, operators: Iterable[Operator], *, recomputes_ffn: bool) -> _Part:
        """`recomputes_ffn`: whether chunks are recomputed for their own sake, not with their whole layer."""
        body = tuple(operators)
        tensors = self.graph.tensors
        saved = {n: self.size(tensors[n]) for op in body for n in saved_tensors(op, tensors)}
        macs = working = 0
        macs += self._fuse_attention(body, saved)
        if self.strategy.ffn_chunks > 1:
            inner, again = self._inside_ffn(body, saved)
            for name in inner:
                working += -(-saved.pop(name) // self.strategy.ffn_chunks)
            macs += again if recomputes_ffn else 0
        return _Part(saved, working, macs)

    def _fuse_attention(self, body: tuple[Operator, ...], saved: dict[str, int]) -> int:
        """Replace attention weights by their rows' statistics, where the strategy or the workload's own order
        says so; the MACs that make the scores again."""
        maker = {name: op for op in body for name in op.outputs}
        context = {op.inputs[0] for op in body if op.kind == "matmul"}
        macs = 0
        for op in body:
            if op.kind != "softmax" or op.outputs[0] not in context:
                continue
            scores = maker.get(op.inputs[0])
            drop = [op.outputs[0]]
            while scores is not None and scores.kind == "elementwise":
                drop.append(scores.outputs[0])
                scores = maker.get(scores.inputs[0])
            if scores is None or scores.kind != "matmul":
                continue  # scores that no matmul makes are kept: a learned table
            if not (self.strategy.fused_attention or scores.order == "flash"):
                continue
            for name in (*drop, scores.outputs[0]):
                saved.pop(name, None)
            rows = self.graph.tensors[op.outputs[0]].elements // self.graph.tensors[op.outputs[0]].shape[-1]
            saved[f"{op.outputs[0]} statistic"] = rows * STATISTIC_BYTES
            macs += scores.macs
        return macs

    def _inside_ffn(self, body: tuple[Operator, ...], saved: Mapping[str, int]) -> tuple[list[str], int]:
        """The saved tensors made inside feed-forward networks (scope `ffn`), and the MACs that make them."""
        network = [op for op in body if "ffn" in op.name.split(".")]
        inner = [name for op in network for name in op.outputs if name in saved and _stays(name, body)]
        read = {name for op in network for name in op.inputs}
        again = sum(op.macs for op in network if read.intersection(op.outputs))
        return inner, again


def _stays(name: str, body: tuple[Operator, ...]) -> bool:
    return all("ffn" in op.name.split(".") for op in body if name in op.inputs)


Saves = Callable[[Operator], tuple[str, ...]]


def _nothing(_: Operator) -> tuple[str, ...]:
    return ()


def _inputs(op: Operator) -> tuple[str, ...]:
    return op.inputs


def _first_input(op: Operator) -> tuple[str, ...]:
    return op.inputs[:1]


def _outputs(op: Operator) -> tuple[str, ...]:
    return op.outputs


_LINEAR = frozenset(
    {"add", "scale", "scale_mask", "minus_infinity_mask", "scale_position_mask", "self_mask", "mean"}
    | {"causal_self_mask", "scale_causal_self_mask", "identity_minus", "rope", "mask", "negate", "compare"}
)
"""Elementwise functions whose derivative is known without their operands."""

_FROM_RESULT = frozenset(
    {"tanh", "sigmoid", "relu", "exp", "elu_plus_one", "relu_offset", "positive_feature"}
)
"""Elementwise functions whose derivative follows from their result."""

_SAVES: Mapping[tuple[str, str], Saves] = MappingProxyType(
    {
        ("matmul", ""): lambda op: op.inputs[:2],  # dA = dC B^T, dB = A^T dC
        ("matmul", "transpose_b"): lambda op: op.inputs[:2],
        ("softmax", ""): _outputs,  # dx = y (dy - sum(y dy))
        ("softmax", "softmax_lse"): _outputs,
        ("reduce", "sum"): _nothing,
        ("reduce", "mean"): _nothing,
        ("reduce", "pool"): _nothing,
        ("scan", "sum"): _nothing,
        ("scatter", "combine"): _inputs,
        ("elementwise", "multiply"): _inputs,
        ("elementwise", "divide"): _inputs,
    }
    | {("elementwise", name): _nothing for name in _LINEAR}
    | {("elementwise", name): _outputs for name in _FROM_RESULT}
)


def saved_tensors(op: Operator, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The activations, caches and indices that an operator's backward pass reads.

    A matmul's operands; a softmax's result; a norm's input (its rows' two statistics are small and not
    counted); of elementwise functions what their derivative needs; the indices of what moves or selects. Of
    a function not known here, its first input. Weights are there anyway.
    """
    if op.kind in ("gather", "scatter", "sort", "topk") and (op.kind, op.function) not in _SAVES:
        named = [n for n in (*op.inputs, *op.outputs) if tensors[n].role == "index"]
    else:
        named = list(_SAVES.get((op.kind, op.function), _first_input)(op))
    return tuple(dict.fromkeys(n for n in named if tensors[n].role != "weight"))


@dataclass(frozen=True, slots=True)
class HeldTensors:
    """Tensors of one kind that an attention operation has in memory at its peak."""

    what: str
    tensors: int
    bytes_each: int


Kernel = Literal["materialised", "flash"]


def attention_memory(
    kernel: Kernel, batch: int, heads: int, tokens: int, head_dim: int = 64, element_bytes: int = 2
) -> tuple[HeldTensors, ...]:
    """Memory of attention alone, forward and backward: softmax(Q K^T) V on q, k, v [batch, tokens, heads,
    head_dim] in 16 bits, as FlashAttention's table 21 measures it (arXiv:2205.14135, appendix E.6).

    `materialised`, the paper's "PyTorch Attention" and "Megatron": 10 tensors like q and 4 of scores, each
    [batch, heads, tokens, tokens]. `flash`: 11 tensors like q, a 32-bit accumulator for the gradient of q
    where there is more than one block of 256 keys, and 2 32-bit statistics of each row. The counts reproduce
    the table in whole MiB (sizes rounded down); which tensor is which is our reading.
    """
    row = batch * heads * tokens
    like_q = row * head_dim * element_bytes
    if kernel == "materialised":
        return (
            HeldTensors("like q", 10, like_q),
            HeldTensors("scores", 4, row * tokens * element_bytes),
        )
    accumulator = row * head_dim * 4 if tokens > _FLASH_KEYS else 0
    return (
        HeldTensors("like q", 11, like_q),
        HeldTensors("accumulator", 1 if accumulator else 0, accumulator),
        HeldTensors("row statistics", 2, row * STATISTIC_BYTES),
    )


_FLASH_KEYS = 256
"""Keys that one block of FlashAttention's first kernels holds, at up to 64 elements a head."""
