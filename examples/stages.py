"""One encoder block on its way to a number: operators, regions, chosen loop nests, simulated cycles."""

import tilewright as tw
from tilewright.dataflows.plan import plan

accelerator = tw.load_accelerator("gemmini-default")
workload = tw.load_workload("encoder_block", ["d=256", "heads=4", "ffn=1024", "seq=128"])
the_plan = plan(workload, accelerator)
result = tw.simulate(accelerator, workload)

print(f"{len(workload.operators)} operators -> {len(the_plan.schema.cut.regions)} regions")
print(f"kept on chip: {', '.join(sorted(the_plan.schema.resident)) or 'nothing'}\n")
print(f"{'region':49} {'tiling':46} {'planned':>8} {'simulated':>9}")
simulated = {row.name: row.cycles for row in result.operators}
for group in the_plan.schema.groups:
    for step in group.steps:
        names = [workload.operators[index].name for index in step.region.operators]
        mapping = the_plan.mappings[step.request]
        print(f"{' + '.join(names):49} {mapping.tiling!s:46} {mapping.cycles:8,} {simulated[names[0]]:9,}")
print(f"{'total':96} {the_plan.cycles:8,} {result.cycles:9,}")
