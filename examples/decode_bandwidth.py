"""A decoded token reads every weight once. Does more DRAM bandwidth make it faster, and until when?"""

import tilewright as tw


def main() -> None:
    workload = tw.load_workload("llama-3.2-1b", ["phase=decode", "seq=1024"])
    print(f"{workload.name}, {workload.parameters:,} parameters, a token at position 1,024\n")
    print(" GB/s   ms/token   bytes/bandwidth   DRAM busy   array: weight shift   array: useful")
    for bandwidth in (25, 50, 100, 200, 400, 800):
        # at 1 GHz, bytes per cycle are GB/s
        dram = f"dram={{kind: flat, bytes_per_cycle: {bandwidth}, latency_cycles: 100}}"
        result = tw.simulate(tw.load_accelerator("edge-npu-large", [dram]), workload)
        moved = result.traffic_bytes["dram"]
        floor_ms = (moved.read + moved.write) / bandwidth / 1e6
        dram_busy = result.units["dram"]["busy"] / result.cycles
        shift = result.stalls["weight_shift"] / result.cycles
        print(
            f"{bandwidth:5}{result.latency_s * 1e3:11.2f}{floor_ms:15.2f} ms{dram_busy:12.1%}"
            f"{shift:22.1%}{result.utilization:16.2%}"
        )


if __name__ == "__main__":
    main()
