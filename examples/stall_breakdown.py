"""What does the array do all the time? Its cycles by cause, for an encoder and a decoder on several machines."""

import tilewright as tw

MACHINES = (
    "edge-npu-small",
    "gemmini-default",
    "edge-npu-large",
    "tpu-v1",
    "tpu-v3-core",
    "many-core-server",
)
WORKLOADS = {"bert-base": ["seq=128"], "gpt2": ["phase=decode", "seq=512"]}


def main() -> None:
    for name, overrides in WORKLOADS.items():
        workload = tw.load_workload(name, overrides)
        results = [tw.simulate(tw.load_accelerator(machine), workload) for machine in MACHINES]
        causes = {cause: None for result in results for cause, cycles in result.stalls.items() if cycles}
        print(
            f"{f'{name} {" ".join(overrides)}':26}" + "".join(f"{cause:>16}" for cause in ("busy", *causes))
        )
        for result in results:
            shares = [result.units["array"]["busy"], *(result.stalls.get(cause, 0) for cause in causes)]
            print(
                f"{result.accelerator:26}" + "".join(f"{cycles / result.cycles:16.1%}" for cycles in shares)
            )
        print()


if __name__ == "__main__":
    main()
