"""The measurements that are kept in benchmarks/results/, as tables.

python -m benchmarks.show
"""

from __future__ import annotations

import json

from benchmarks import scalesim, speed
from benchmarks.measure import RESULTS, Cost


def main() -> None:
    kept = json.loads((RESULTS / "speed.json").read_text())
    print(f"{place(kept['circumstances'])}\n")
    print(speed.table({command: Cost(**cost) for command, cost in kept["costs"].items()}))
    for file in sorted(RESULTS.glob("scalesim-*.json")):
        kept = json.loads(file.read_text())
        gemms = [scalesim.Gemm(**gemm) for gemm in kept["gemms"]]
        theirs, ours = (scalesim.side(kept[name]) for name in ("scalesim", "tilewright"))
        size, dataflow = kept["size"], scalesim.DATAFLOWS[kept["dataflow"]].replace("_", " ")
        print(f"\n{len(gemms)} GEMMs of a BERT-base layer, {size} x {size}, {dataflow}\n")
        print(scalesim.table(gemms, theirs, ours))


def place(circumstances: dict[str, object]) -> str:
    """Where and when, in a line."""
    keys = ("date", "cpu", "cores", "memory_gib", "python")
    date, cpu, cores, memory, python = (circumstances[key] for key in keys)
    return f"{date}: {cores} cores of {cpu}, {memory} GiB, Python {python}"


if __name__ == "__main__":
    main()
