"""A product small enough to be followed on paper: C[8, 8] = A[8, 8] B[8, 8] on the 4 x 4 teaching array."""

import tilewright as tw
from tilewright.dataflows.plan import plan
from tilewright.dataflows.program import unrolled

accelerator = tw.load_accelerator("teaching-4x4")
workload = tw.load_workload("gemm", ["m=8", "k=8", "n=8"])
((_, mapping),) = plan(workload, accelerator).mappings.items()

print(f"chosen tiling (m x k x n): {mapping.tiling}\n")
print("tick  weight load   input load    array                            store")
for number, tick in enumerate(unrolled(mapping.program), 1):
    loads = [f"{t.bytes} B, {t.occupancy} + {t.latency}" if t else "-" for t in (tick.weight, tick.input)]
    rest = tick.array - tick.array_streaming
    array = f"{tick.array_preload} shift, {tick.array} = {tick.array_streaming} stream + {rest} skew"
    store = f"{tick.store.bytes} B, {tick.store.occupancy} + {tick.store.latency}" if tick.store else "-"
    print(f"{number:4}  {loads[0]:12}  {loads[1]:12}  {array:31}  {store}")

result = tw.simulate(accelerator, workload, trace=True)
print("\nwhat the units did (SimPy):")
for piece in sorted(result.slices, key=lambda piece: (piece.start, piece.resource)):
    print(f"  {piece.start:3} to {piece.end:3}  {piece.resource:5}  {piece.name}")

print("\nthe array's cycles:")
busy = result.units["array"]["busy"]
for cause, cycles in {"busy": busy, **result.stalls}.items():
    if cycles:
        print(f"  {cycles:3}  {cause}")
print(f"  {result.cycles:3}  total")

fidelities = {name: tw.simulate(accelerator, workload, name) for name in ("analytic", "event", "cycle")}
print("\nby fidelity:", ", ".join(f"{name} {run.cycles}" for name, run in fidelities.items()))
product = fidelities["cycle"].outputs
print("C equals numpy's A @ B:", bool((product["a"] @ product["b"] == product["gemm"]).all()))
