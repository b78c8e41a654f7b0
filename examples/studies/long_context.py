"""Sweeps long-context.yaml and sets every mechanism beside exact attention in one fused kernel."""

from pathlib import Path

import tilewright as tw

SPACE = Path(__file__).with_name("long-context.yaml")
LENGTHS = {"n512": "512", "n4k": "4,096", "n32k": "32,768"}


def main() -> None:
    frame = tw.sweep(SPACE, out="demo/long-context", jobs=1).to_frame()
    own = [name for name in frame.columns if name.startswith("workload.attention.") and "kind" not in name]
    exact = frame[frame["workload.attention.kind"] == "flash"].iloc[0]
    print("layer, speed against flash = 1" + "".join(f"{length:>10}" for length in LENGTHS.values()))
    for _, row in frame.sort_values("n32k:latency_s", ascending=False).iterrows():
        chosen = [f"{name.rsplit('.', 1)[1]} {row[name]:.0f}" for name in own if row[name] == row[name]]
        speeds = (exact[f"{name}:latency_s"] / row[f"{name}:latency_s"] for name in LENGTHS)
        name = " ".join([row["workload.attention.kind"], *chosen])
        print(f"{name:30}" + "".join(f"{speed:10.2f}" for speed in speeds))


if __name__ == "__main__":
    main()
