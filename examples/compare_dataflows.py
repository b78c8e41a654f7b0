"""Which operand should stay in the array? The three dataflows on GEMMs of different shapes, and on a real machine."""

import tilewright as tw

DATAFLOWS = ("weight_stationary", "output_stationary", "input_stationary")
SHAPES = {
    "square": (512, 512, 512),
    "tall": (4096, 64, 64),
    "deep": (64, 4096, 64),
    "one row": (1, 4096, 4096),
}


def main() -> None:
    print(f"{'cycles':24}" + "".join(f"{name.replace('_', ' '):>19}" for name in DATAFLOWS))
    for machine in ("bare-array", "gemmini-default"):
        for name, (m, k, n) in SHAPES.items():
            workload = tw.load_workload("gemm", [f"m={m}", f"k={k}", f"n={n}"])
            cycles = [
                tw.simulate(tw.load_accelerator(machine, [f"array.dataflow={dataflow}"]), workload).cycles
                for dataflow in DATAFLOWS
            ]
            best = min(cycles)
            marked = "".join(f"{count:18,}{'*' if count == best else ' '}" for count in cycles)
            print(f"{machine:16}{name:8}{marked}")


if __name__ == "__main__":
    main()
