"""What does the array do all the time? Its cycles by cause, for an encoder and a decoder on six machines."""

import tilewright as tw

MACHINES = (
    "edge-npu-small", "gemmini-default", "edge-npu-large", "tpu-v1", "tpu-v3-core", "many-core-server",
)  # fmt: skip
WORKLOADS = {"bert-base": ["seq=128"], "gpt2": ["phase=decode", "seq=512"]}


def main() -> None:
    for name, overrides in WORKLOADS.items():
        workload = tw.load_workload(name, overrides)
        results = [tw.simulate(tw.load_accelerator(machine), workload) for machine in MACHINES]
        causes = dict.fromkeys(cause for result in results for cause in result.stalls if result.stalls[cause])
        print(f"{' '.join([name, *overrides]):25}{'busy':>7}" + "".join(f"{cause:>17}" for cause in causes))
        for result in results:
            shares = [result.stalls.get(cause, 0) / result.cycles for cause in causes]
            busy = result.units["array"]["busy"] / result.cycles
            print(f"{result.accelerator:25}{busy:7.1%}" + "".join(f"{share:17.1%}" for share in shares))
        print()


if __name__ == "__main__":
    main()
