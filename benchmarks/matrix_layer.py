"""An encoder layer's matmuls on the matrix unit's RTL, back to back: cycles and numbers.

python -m benchmarks.matrix_layer [--size 8] [--d 256] [--heads 4] [--ffn 1024] [--seq 128]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.matrix_unit import MatrixJob, MatrixUnit, Order, matrix_job
from tilewright.dataflows.matrix_unit import ideal_cycles
from tilewright.rtl import matrix_model as model
from tilewright.rtl.cosim import simulator
from tilewright.rtl.matrix_unit import MatrixCore
from tilewright.rtl.streams import Simulator, Sink, Source, Trace, pack, to_words, unpack
from tilewright.workloads.load import load_workload
from tilewright.workloads.operators import MatmulShape

ORDERS: tuple[Order, ...] = ("weight_stationary", "output_stationary")


@dataclass(frozen=True)
class Product:
    """A job and its operands."""

    job: MatrixJob
    x: NDArray[np.int64]
    w: NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8, help="rows and columns of PEs (default: %(default)s)")
    for name, value in (("d", 256), ("heads", 4), ("ffn", 1024), ("seq", 128)):
        parser.add_argument(f"--{name}", type=int, default=value, help="of the layer (default: %(default)s)")
    chosen = parser.parse_args()
    overrides = [f"workload.{name}={getattr(chosen, name)}" for name in ("d", "heads", "ffn", "seq")]
    unit = MatrixUnit(chosen.size, chosen.size)
    core = simulator(lambda: MatrixCore(unit))
    print(
        "| order | matmuls | MACs | RTL cycles | closed form | PEs busy | beats of w | numbers | cycles/s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---|---:|")
    for order in ORDERS:
        print(row(unit, core, order, overrides))


def row(unit: MatrixUnit, core: Simulator, order: Order, overrides: list[str]) -> str:
    """One line of the table."""
    products = layer(unit, order, overrides)
    start = time.perf_counter()
    trace = run(unit, core, products)
    speed = trace.cycles / (time.perf_counter() - start)
    macs = sum(p.x.size * p.w.shape[1] for p in products)
    busy = 100 * macs / (trace.cycles * unit.rows * unit.cols)
    numbers = "equal" if equal(unit, products, trace) else "DIFFERENT"
    w_beats = sum(p.job.w_beats(unit) for p in products)
    closed_form = ideal_cycles(unit, [p.job for p in products])
    return (
        f"| {order.replace('_', ' ')} | {len(products)} | {macs:,} | {trace.cycles:,} | {closed_form:,} "
        f"| {busy:.3f} % | {w_beats:,} | {numbers} | {speed:,.0f} |"
    )


def layer(unit: MatrixUnit, order: Order, overrides: list[str]) -> list[Product]:
    """Every matmul of an encoder layer, one a head where there are heads, on random operands."""
    rng = np.random.default_rng(0)
    half = 1 << (unit.operand_bits - 1)
    products = []
    for operator in load_workload("encoder_block", overrides).operators:
        if isinstance(shape := operator.shape, MatmulShape):
            job = matrix_job(unit, shape.m, shape.k, shape.n, order)
            for _ in range(shape.batch):
                x = rng.integers(-half, half, (shape.m, shape.k))
                products.append(Product(job, x, rng.integers(-half, half, (shape.k, shape.n))))
    return products


def run(unit: MatrixUnit, core: Simulator, products: list[Product]) -> Trace:
    """All of them, one after another, on streams that are always ready."""
    command = next(stream for stream in core.ports.streams if stream.name == "command")
    commands = [sum(getattr(p.job, f.name) << f.offset for f in command.fields) for p in products]
    x = np.concatenate([model.x_beats(unit, p.job, p.x) for p in products])
    w = np.concatenate([model.w_beats(unit, p.job, p.w) for p in products])
    sources = {
        "command": Source(to_words(commands, command.width)),
        "x": Source(pack(x, unit.operand_bits)),
        "w": Source(pack(w, unit.operand_bits)),
    }
    return core.run(sources, {"y": Sink(sum(p.job.y_beats for p in products))})


def equal(unit: MatrixUnit, products: list[Product], trace: Trace) -> bool:
    """Whether every y is numpy's."""
    beats = unpack(trace.payloads["y"], unit.accumulator_bits, unit.rows)
    ends = np.cumsum([p.job.y_beats for p in products])
    return all(
        np.array_equal(model.y_matrix(unit, p.job, part, p.w.shape[1]), model.model(p.x, p.w))
        for p, part in zip(products, np.split(beats, ends[:-1]), strict=True)
    )


if __name__ == "__main__":
    main()
