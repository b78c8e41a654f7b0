"""Which operand should stay in the array? Cycles of GEMMs of different shapes under the three dataflows."""

import tilewright as tw

DATAFLOWS = ("weight_stationary", "output_stationary", "input_stationary")
MACHINES = ("bare-array", "edge-npu-small", "tpu-v1")
SHAPES = {
    "512 x 512 x 512": ["m=512", "k=512", "n=512"],
    "4096 x 64 x 64": ["m=4096", "k=64", "n=64"],
    "64 x 4096 x 64": ["m=64", "k=4096", "n=64"],
    "1 x 4096 x 4096": ["m=1", "k=4096", "n=4096"],
}


def main() -> None:
    print(f"{'machine':16}{'m x k x n':16}" + "".join(f"{name.replace('_', ' '):>19}" for name in DATAFLOWS))
    for machine in MACHINES:
        arrays = [tw.load_accelerator(machine, [f"array.dataflow={dataflow}"]) for dataflow in DATAFLOWS]
        for shape, sizes in SHAPES.items():
            workload = tw.load_workload("gemm", sizes)
            cycles = [tw.simulate(array, workload).cycles for array in arrays]
            marked = (f"{count:18,}{'*' if count == min(cycles) else ' '}" for count in cycles)
            print(f"{machine:16}{shape:16}{''.join(marked)}".rstrip())


if __name__ == "__main__":
    main()
