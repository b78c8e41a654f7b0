"""How large an array can one encoder block of BERT-base keep busy, and what does it wait for?"""

import tilewright as tw

workload = tw.load_workload("encoder_block", ["d=768", "heads=12", "ffn=3072", "seq=512"])
for size in (16, 32, 64, 128):
    accelerator = tw.load_accelerator("gemmini-default", [f"array.rows={size}", f"array.cols={size}"])
    result = tw.simulate(accelerator, workload)
    wait = max(result.stalls, key=lambda cause: result.stalls[cause])
    print(f"{size:3} x {size:3}: {result.cycles:10,} cycles, {result.utilization:5.1%} used, waits: {wait}")
