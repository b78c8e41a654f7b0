"""How passes change a graph: operators put in each other's place, and axes of tensors made smaller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase

from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, Primitive, RowsShape, Tensor
from tilewright.workloads.pairs import Pairs
from tilewright.workloads.primitives import Primitives, add, totals


def rebuilt(
    graph: OperatorGraph, instead: Mapping[int, Sequence[Operator]], tensors: Iterable[Tensor] = ()
) -> OperatorGraph:
    """The graph with `instead[i]` in the place of `operators[i]`, and `tensors` new or in place of old ones;
    tensors that nothing mentions any more are dropped."""
    operators: list[Operator] = []
    starts: list[int] = []
    for index, op in enumerate(graph.operators):
        starts.append(len(operators))
        operators.extend(instead.get(index, (op,)))
    starts.append(len(operators))
    repeats = tuple(replace(r, start=starts[r.start], stop=starts[r.stop]) for r in graph.repeats)
    known = {**graph.tensors, **{tensor.name: tensor for tensor in tensors}}
    used = {name for op in operators for name in (*op.inputs, *op.outputs)}
    used |= {*graph.inputs, *graph.outputs, *(n for r in repeats for n in (r.carry_in, r.carry_out))}
    kept = {name: tensor for name, tensor in known.items() if name in used}
    return replace(graph, operators=tuple(operators), tensors=kept, repeats=repeats)


def linears(graph: OperatorGraph, where: Sequence[str]) -> Iterator[tuple[int, Operator, MatmulShape]]:
    """Dense layers (one matrix of weights, stored as [k, n]) whose operator's name matches one of the
    patterns: index, operator, shape."""
    for index, op in enumerate(graph.operators):
        shape = op.shape
        if not isinstance(shape, MatmulShape) or shape.batch > 1 or op.function or op.views:
            continue
        weight = graph.tensors[op.inputs[1]]
        if weight.role == "weight" and weight.elements == shape.k * shape.n and matches(op.name, where):
            yield index, op, shape


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name matches one of the patterns (`*`, `?`)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def scopes(graph: OperatorGraph, last: str) -> dict[str, dict[str, int]]:
    """The operators inside each scope whose name ends with `last`: by scope, then by name inside, the
    index."""
    found: dict[str, dict[str, int]] = {}
    for index, op in enumerate(graph.operators):
        parts = op.name.split(".")
        end = next((i for i, part in enumerate(parts[:-1], start=1) if part.endswith(last)), 0)
        if end:
            found.setdefault(".".join(parts[:end]), {})[".".join(parts[end:])] = index
    return found


def less(total: int, fraction: float, what: str) -> int:
    """How many of `total` are left when a fraction, rounded to whole ones, goes. Raises `InputError` when
    none is left."""
    kept = total - round(total * fraction)
    if not kept:
        raise InputError(f"compression: a fraction of {fraction:g} leaves none of {total} {what}")
    return kept


def more_work(op: Operator, primitive: Primitive, count: int) -> Primitives:
    """The operator's primitives and `count` more of one."""
    return add(op.primitives, totals({primitive: count}))


@dataclass
class Resized:
    """Operators and tensors of a graph made smaller along an axis; `graph()` puts them in."""

    before: OperatorGraph
    operators: dict[int, Operator] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, name: str, axis: int, kept: int, total: int) -> None:
        """Keep `kept` of `total` along an axis; once, however many operators say so."""
        old = self.before.tensors[name]
        shape = list(old.shape)
        shape[axis] = part(shape[axis], kept, total)
        if old.kept is not None or old.side_bits:
            raise InputError(f"compression: prune {name} before its weights are quantised or made sparse")
        self.tensors[name] = replace(old, shape=tuple(shape))

    def operator(self, index: int, size: str, kept: int, total: int, *, work: bool = True) -> None:
        """Keep `kept` of `total` of one size of the operator's shape and, with `work`, of its primitives."""
        op = self.before.operators[index]
        shape = resized(op.shape, size, kept, total)
        counts = op.primitives
        if work:
            counts = tuple((name, part(count, kept, total)) for name, count in counts)
        useful = None if op.useful_macs is None else op.useful_macs * kept // total
        self.operators[index] = replace(op, shape=shape, primitives=counts, useful_macs=useful)

    def pairs(self, index: int, pairs: Pairs) -> None:
        """Say anew, of an operator that has been made smaller, which scores matter."""
        self.operators[index] = replace(self.operators[index], pairs=pairs)

    def graph(self) -> OperatorGraph:
        """The graph with all of it put in."""
        return rebuilt(
            self.before, {index: (op,) for index, op in self.operators.items()}, self.tensors.values()
        )


def resized(shape: MatmulShape | RowsShape, size: str, kept: int, total: int) -> MatmulShape | RowsShape:
    """The shape with `kept` of `total` parts of one of its sizes."""
    sizes: dict[str, int] = asdict(shape)
    sizes[size] = part(sizes[size], kept, total)
    return MatmulShape(**sizes) if isinstance(shape, MatmulShape) else RowsShape(**sizes)


def part(size: int, kept: int, total: int) -> int:
    """`kept` of `total` equal parts of a size. Raises `InputError` where the size has no such parts."""
    if size % total:
        raise InputError(f"compression: a size of {size} can't be cut into {total} equal parts")
    return size // total * kept
