"""One decoded token reads every weight once: how far does DRAM bandwidth alone explain its latency?"""

import tilewright as tw


def main() -> None:
    workload = tw.load_workload("llama-3.2-1b", ["phase=decode", "seq=1024"])
    print(f"{workload.name}: {workload.parameters:,} parameters, a token at position 1,024\n")
    print(" GB/s   ms/token   DRAM busy   bytes/bandwidth alone   array used")
    for gb_per_second in (25, 50, 100, 200, 400, 800):
        accelerator = tw.load_accelerator(
            "edge-npu-large", ["dram={kind: flat, latency_cycles: 100, bytes_per_cycle: %d}" % gb_per_second]
        )  # at 1 GHz, bytes per cycle are GB/s
        result = tw.simulate(accelerator, workload)
        moved = result.traffic_bytes["dram"]
        alone = (moved.read + moved.write) / (gb_per_second * 1e9)
        busy = result.units["dram"]["busy"] / result.cycles
        print(
            f"{gb_per_second:5} {result.latency_s * 1e3:10.2f} {busy:11.1%} {alone * 1e3:20.2f} ms"
            f" {result.utilization:12.2%}"
        )


if __name__ == "__main__":
    main()
