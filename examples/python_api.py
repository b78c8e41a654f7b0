"""Which dataflow suits one encoder block of BERT-base, and what does the array wait for?"""

import tilewright as tw

workload = tw.load_workload("encoder_block", ["d=768", "heads=12", "ffn=3072", "seq=512"])
for dataflow in ("weight_stationary", "output_stationary", "input_stationary"):
    accelerator = tw.load_accelerator("gemmini-default", [f"array.dataflow={dataflow}"])
    result = tw.simulate(accelerator, workload)
    cause = max(result.stalls, key=lambda name: result.stalls[name])
    print(f"{dataflow:18} {result.cycles:>10,} cycles  {result.utilization:6.1%}  waits mostly for: {cause}")
