"""The operator graph: its rules, the written-out form, and what vector operators cost."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import networkx as nx
import pytest

from tests.graphs import total_primitives
from tilewright.workloads import primitives
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph, Repeat
from tilewright.workloads.load import load_workload, preset_names
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape, Tensor
from tilewright.workloads.rules import GraphRuleError, check

SMALL_RUNS = [
    *((name, ()) for name in preset_names()),
    ("gpt2", ("generate=3", "seq=5")),
    ("llama-3-8b", ("phase=decode", "batch=2")),
    ("qwen1.5-moe-a2.7b", ("phase=decode", "batch=3")),
    ("mixtral-8x7b", ("seq=7", "generate=2")),
    ("t5-small", ("generate=3", "gated=true", "tied=false")),
    ("whisper-tiny", ("phase=decode",)),
    ("albert-base", ("groups=4", "inner_layers=2")),
    ("encoder_block", ("batch=3", "act=relu")),
]


@pytest.mark.parametrize(("name", "overrides"), SMALL_RUNS)
def test_writing_copies_out_changes_nothing(name: str, overrides: tuple[str, ...]) -> None:
    """The expanded graph keeps the rules and has the same work and parameters as the compressed one."""
    graph = load_workload(name, overrides)
    plain = graph.expand()
    check(plain)
    assert not plain.repeats
    assert (plain.macs, plain.parameters) == (graph.macs, graph.parameters)
    assert not any("{" in text for text in (*plain.tensors, *plain.outputs))
    assert total_primitives(plain) == total_primitives(graph)
    assert len(plain.operators) == sum(graph.times(i) for i in range(len(graph.operators)))


def test_copies_are_chained() -> None:
    """Each layer of the expanded graph reads the one before it, and what follows reads the last."""
    plain = load_workload("llama-2-7b", ["layers=3", "seq=4"]).expand()
    by_name = {op.name: op for op in plain.operators}
    assert by_name["layers.0.attention_norm"].inputs[0] == "embeddings.word"
    assert by_name["layers.1.attention_norm"].inputs[0] == "layers.0.ffn_residual"
    assert by_name["layers.2.attention_norm"].inputs[0] == "layers.1.ffn_residual"
    assert by_name["norm"].inputs[0] == "layers.2.ffn_residual"
    depth = nx.dag_longest_path_length(plain.digraph, weight="none", default_weight=1)
    one = nx.dag_longest_path_length(
        load_workload("llama-2-7b", ["layers=1", "seq=4"]).expand().digraph, weight="none", default_weight=1
    )
    two = nx.dag_longest_path_length(
        load_workload("llama-2-7b", ["layers=2", "seq=4"]).expand().digraph, weight="none", default_weight=1
    )
    assert depth - two == two - one > 0


def test_digraph_hands_tensors_over() -> None:
    """The networkx view is acyclic, with a node per operator and the tensor on each edge."""
    graph = load_workload("encoder_block")
    view = graph.digraph
    assert nx.is_directed_acyclic_graph(view)
    assert set(view) == {op.name for op in graph.operators}
    assert view.edges["attention.scores", "attention.scale"]["tensor"] == "attention.scores"


def test_networkx_loads_only_when_asked_for() -> None:
    """Lowering a model does not import networkx, which takes half a second."""
    code = (
        "import sys; from tilewright.workloads.load import load_workload; load_workload('gpt2');"
        "sys.exit('networkx' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def two_layers() -> OperatorGraph:
    """input -> 3 x (matmul with bias, gelu) -> softmax."""
    b = GraphBuilder("toy")

    def layer(x: Tensor) -> Tensor:
        return b.elementwise("act", "gelu", b.linear("dense", x, 8))

    x = b.repeat(3, "layers.{i}", b.input("x", (1, 4, 8)), layer)
    return b.finish(b.softmax("softmax", x))


def with_operator(index: int, **changes: object) -> OperatorGraph:
    """The toy graph with one operator changed."""
    graph = two_layers()
    operators = list(graph.operators)
    operators[index] = replace(operators[index], **changes)  # type: ignore[arg-type]
    return replace(graph, operators=tuple(operators))


def with_extra(op: Operator, *tensors: Tensor) -> OperatorGraph:
    """The toy graph with one operator more at its end."""
    graph = two_layers()
    known = {**graph.tensors, **{tensor.name: tensor for tensor in tensors}}
    return replace(graph, operators=(*graph.operators, op), tensors=known)


def relu(name: str, source: str, result: str) -> Operator:
    """relu over the toy's 4 x 8 activations."""
    return Operator(name, "elementwise", (source,), (result,), RowsShape(4, 8), "relu", (("compare", 32),))


BROKEN: list[tuple[Callable[[], OperatorGraph], str]] = [
    (lambda: with_operator(0, inputs=("x", "no", "layers.{i}.dense.bias")), "tensor 'no' exists"),
    (lambda: with_operator(1, inputs=("softmax",)), "'softmax' is made before it is read"),
    (lambda: with_operator(1, name="act"), "hold {i}"),
    (lambda: with_operator(2, name="layers.{i}.act"), "operator names are unique"),
    (lambda: with_operator(0, primitives=()), "one add per element for its bias"),
    (lambda: with_operator(0, shape=MatmulShape(1, 4, 7, 8)), r"A has batch\*m\*k elements"),
    (lambda: with_operator(0, shape=MatmulShape(1, 4, 8, 9), primitives=(("add", 36),)), "B has"),
    (lambda: with_operator(0, function="transposed"), "`transpose_b`"),
    (
        lambda: with_operator(0, views=True, shape=MatmulShape(1, 4, 8, 7), primitives=(("add", 28),)),
        "B is made of rows of 7 elements; it has 64",
    ),
    (lambda: with_operator(0, useful_macs=257), "useful MACs are 0 or more and at most 256; not 257"),
    (lambda: with_operator(0, useful_macs=-1), "useful MACs are 0 or more and at most 256; not -1"),
    (lambda: with_operator(1, useful_macs=1), "only a matmul has useful MACs"),
    (lambda: with_operator(1, views=True), "only a matmul reads views"),
    (lambda: with_operator(0, shape=RowsShape(4, 8)), "a matmul has a matmul's shape"),
    (lambda: with_operator(1, primitives=()), "an? elementwise has primitives"),
    (lambda: with_operator(1, primitives=(("tanh", 32), ("add", 32))), "sorted by name"),
    (lambda: with_operator(1, primitives=(("tanh", 0),)), "counted positively"),
    (lambda: with_operator(1, shape=RowsShape(4, 7)), "equally many elements"),
    (lambda: with_operator(2, inputs=("layers.{i}.dense",)), "not inside another block"),
    (lambda: with_extra(relu("dead", "softmax", "dead"), Tensor("dead", (4, 8))), "read or put out"),
    (lambda: with_extra(relu("again", "x", "softmax")), "one producer"),
    (lambda: with_extra(relu("source", "softmax", "x")), "not come from outside"),
    (lambda: with_extra(relu("w", "x", "layers.{i}.dense.bias")), "no operator writes weight"),
    (lambda: with_extra(relu("{i}", "x", "y"), Tensor("y", (4, 8))), "stands in repeated blocks only"),
    (lambda: replace(two_layers(), outputs=("none",)), "tensor 'none' of its inputs and outputs exists"),
    (lambda: replace(two_layers(), outputs=("layers.{i}.dense", "softmax")), "visible at the end"),
    (lambda: replace(two_layers(), inputs=("x", "softmax")), "not come from outside"),
    (lambda: with_repeats((0, 2, 3), (1, 3, 2)), "repeats do not overlap"),
    (lambda: with_repeats((0, 2, 0)), "runs at least once"),
    (lambda: with_repeats((0, 9, 2)), "repeats do not overlap"),
]


def with_repeats(*repeats: tuple[int, int, int]) -> OperatorGraph:
    """The toy graph with other repeats."""
    made = tuple(Repeat(start, stop, times, "x", "layers.{i}.act") for start, stop, times in repeats)
    return replace(two_layers(), repeats=made)


@pytest.mark.parametrize(("make", "rule"), BROKEN, ids=[rule for _, rule in BROKEN])
def test_a_broken_rule_is_named(make: Callable[[], OperatorGraph], rule: str) -> None:
    """Each rule catches a graph that breaks it, and says which rule it is."""
    check(two_layers())
    with pytest.raises(GraphRuleError, match=rule):
        check(make())


def test_carry_shapes_must_match() -> None:
    """A block whose result has another shape than its operand cannot run twice."""
    b = GraphBuilder("toy")
    x = b.repeat(2, "layers.{i}", b.input("x", (1, 4, 8)), lambda y: b.linear("dense", y, 9))
    with pytest.raises(GraphRuleError, match="carry shapes match"):
        b.finish(x)


def test_one_name_is_one_weight() -> None:
    """Asking for a weight again by name gives the same tensor, and another shape is refused."""
    b = GraphBuilder("toy")
    assert b.weight("w", (2, 3)) is b.weight("w", (2, 3))
    with pytest.raises(ValueError, match=r"tensor 'w' has shape \(2, 3\), not \(3, 2\)"):
        b.weight("w", (3, 2))


class Counted:
    """A number that counts the primitive operations done on it."""

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self, value: float) -> None:
        self.value = value

    def _done(self, primitive: str, value: float) -> Counted:
        Counted.counts[primitive] += 1
        return Counted(value)

    def __add__(self, other: Counted) -> Counted:
        return self._done("add", self.value + other.value)

    def __sub__(self, other: Counted) -> Counted:
        return self._done("add", self.value - other.value)

    def __mul__(self, other: Counted) -> Counted:
        return self._done("multiply", self.value * other.value)

    def larger(self, other: Counted) -> Counted:
        return self._done("compare", max(self.value, other.value))

    def function(self, primitive: str, f: Callable[[float], float]) -> Counted:
        return self._done(primitive, f(self.value))


ZERO, LOWEST, HALF = Counted(0.0), Counted(-1e30), Counted(0.5)
GAMMA = BETA = EPS = SHARE = SCALE = Counted(0.7)


def reciprocal(x: Counted) -> Counted:
    return x.function("divide", lambda value: 1 / value)


def total(row: list[Counted]) -> Counted:
    result = ZERO
    for x in row:
        result = result + x
    return result


def softmax_row(row: list[Counted]) -> list[Counted]:
    largest = LOWEST
    for x in row:
        largest = largest.larger(x)
    powers = [(x - largest).function("exp", math.exp) for x in row]
    scale = reciprocal(total(powers))
    return [power * scale for power in powers]


def layernorm_row(row: list[Counted]) -> list[Counted]:
    mean = total(row) * SHARE
    centred = [x - mean for x in row]
    variance = total([x * x for x in centred]) * SHARE
    scale = reciprocal((variance + EPS).function("sqrt", lambda v: math.sqrt(abs(v))))
    return [x * scale * GAMMA + BETA for x in centred]


def rmsnorm_row(row: list[Counted]) -> list[Counted]:
    mean = total([x * x for x in row]) * SHARE
    scale = reciprocal((mean + EPS).function("sqrt", math.sqrt))
    return [x * scale * GAMMA for x in row]


def unit_norm_row(row: list[Counted]) -> list[Counted]:
    scale = reciprocal((total([x * x for x in row]) + EPS).function("sqrt", math.sqrt))
    return [x * scale for x in row]


ROWS = {
    "softmax": softmax_row,
    "layernorm": layernorm_row,
    "rmsnorm": rmsnorm_row,
    "unit_norm": unit_norm_row,
}


@pytest.mark.parametrize("function", ROWS)
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (3, 5), (7, 2)])
def test_row_operators_cost_what_their_definition_does(function: str, rows: int, cols: int) -> None:
    """The counts equal those of the textbook definition, carried out on numbers that count."""
    Counted.counts = Counter()
    for _ in range(rows):
        ROWS[function]([Counted(0.1 * i) for i in range(cols)])
    formula = primitives.softmax if function == "softmax" else primitives.NORMS[function]
    assert dict(formula(rows, cols)) == dict(Counted.counts)


def logistic(x: Counted) -> Counted:
    return x.function("tanh", lambda v: 1 / (1 + math.exp(-v)))


def tanh(x: Counted) -> Counted:
    return x.function("tanh", math.tanh)


FUNCTIONS: dict[str, Callable[[Counted], Counted]] = {
    "relu": lambda x: x.larger(ZERO),
    "nonorm": lambda x: GAMMA * x + GAMMA,
    "tanh": tanh,
    "sigmoid": logistic,
    "gelu": lambda x: HALF * x * ((x * SCALE).function("tanh", math.erf) + GAMMA),
    "gelu_new": lambda x: HALF * x * (tanh(SCALE * (x + GAMMA * (x * x * x))) + GAMMA),
    "quick_gelu": lambda x: x * logistic(SCALE * x),
    "silu": lambda x: x * logistic(x),
    "scale": lambda x: x * SCALE,
    "scale_mask": lambda x: x * SCALE + BETA,
    "rope": lambda x: x * GAMMA + SCALE * BETA,
    "mean": lambda x: (x + SCALE) * HALF,
    "mask": lambda x: x * SCALE,
    "minus_infinity_mask": lambda x: x + BETA,
    "elu_plus_one": lambda x: (x.larger(ZERO) + GAMMA).function("exp", math.exp),
    "relu_offset": lambda x: x.larger(ZERO) + EPS,
    "positive_feature": lambda x: ((x - GAMMA - BETA).function("exp", math.exp) + EPS) * SCALE,
    "identity_minus": lambda x: GAMMA - x,
    "self_mask": lambda x: x.larger(LOWEST) + BETA,
    "causal_self_mask": lambda x: x.larger(LOWEST).larger(LOWEST) + BETA,
    "scale_causal_self_mask": lambda x: (x * SCALE).larger(LOWEST).larger(LOWEST) + BETA,
    "scale_position_mask": lambda x: (x * SCALE).larger(LOWEST) + BETA,
    "sinkhorn_logits": lambda x: ((x * SCALE).larger(ZERO) + EPS).function("exp", math.log) * SHARE,
    "exp": lambda x: x.function("exp", math.exp),
    "compare": lambda x: x.larger(SCALE),
    "extreme": lambda x: x.larger(SCALE),
    "clip": lambda x: x.larger(ZERO).larger(SCALE),
    "round": lambda x: (x * SCALE + HALF).larger(ZERO).larger(SCALE),
    "where": lambda x: x.larger(SCALE),
    "negate": lambda x: ZERO - x,
    "reciprocal": lambda x: x.function("divide", math.cosh),
    "square": lambda x: x * x,
    "cube": lambda x: x * x * x,
    "sqrt": lambda x: x.function("sqrt", math.sqrt),
    "sine": lambda x: x.function("tanh", math.sin),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_elementwise_functions_cost_what_their_definition_does(function: str) -> None:
    """The counts equal those of the definition, carried out on numbers that count."""
    Counted.counts = Counter()
    for index in range(9):
        FUNCTIONS[function](Counted(0.3 * index))
    assert dict(primitives.elementwise(function, 9)) == dict(Counted.counts)


def test_sums_count_every_further_operand() -> None:
    """Adding k tensors is k - 1 adds per element."""
    assert primitives.elementwise("add", 10, operands=3) == (("add", 20),)
    assert primitives.elementwise("multiply", 10, operands=2) == (("multiply", 10),)
    assert set(primitives.ELEMENTWISE) == {*FUNCTIONS, "add", "multiply"}


def test_useful_macs_are_all_unless_a_lowering_says_otherwise() -> None:
    """A graph's useful MACs are its MACs less what its matmuls compute in vain, in every copy."""
    plain = two_layers()
    assert plain.useful_macs == plain.macs
    marked = with_operator(0, useful_macs=100)
    assert marked.macs == plain.macs
    assert plain.useful_macs - marked.useful_macs == 3 * (plain.operators[0].macs - 100)
