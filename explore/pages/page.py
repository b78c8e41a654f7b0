"""The words and the looks of the report's page: what each figure says, the frame, the style sheet."""

from __future__ import annotations

from tilewright.explore.pages.pieces import page_template

READINGS = {
    "timeline": (
        "Operators over time",
        "A row per kind of operator, a bar from an operator's first cycle to its last. Bars above each other "
        "ran at the same time. Pale bars are many short operators with gaps between them. Drag to zoom, "
        "double-click to come back.",
    ),
    "utilization": (
        "Utilization over time",
        "Useful MACs as a share of the array's peak, and the busy share of the vector unit and the DRAM; "
        "work is spread evenly over each operator. Where the array is low, what is high is the bottleneck, "
        "if it isn't the predictor of a sparse-attention unit (below).",
    ),
    "stalls": (
        "Where the cycles went",
        "Each unit's cycles, busy or waiting and for what; a bar is the whole run. Busy means that the unit "
        "works, not that all of it does: at the edges of a matrix a part of the array stays empty.",
    ),
    "roofline": (
        "Roofline",
        "A point per operator (equal layers folded), larger where it takes more of the cycles. Under the "
        "slanted roof the DRAM is the limit, under the flat one the array; the gap to the roof is lost time.",
    ),
    "traffic": (
        "Traffic by memory",
        "Bytes read from and written to each memory. What is read from DRAM once and on chip often is reuse.",
    ),
    "kinds": (
        "Time by kind of operator",
        "Cycles that each kind adds to the run, which add up to the total. Work that hides behind other work "
        "adds nothing.",
    ),
    "energy": (
        "Energy by component",
        "What arithmetic, registers, buffers, wires and DRAM take for their work, and what is drawn all the "
        "time: leakage, the DRAM's standby and refresh, the clock where it is not gated.",
    ),
    "energy-kinds": (
        "Energy by kind of operator",
        "What is drawn all the time is charged to the operator whose cycles pass.",
    ),
    "energy-layers": (
        "Energy by layer",
        "In program order; all decode steps of a layer together.",
    ),
    "area": (
        "Area by component",
        "Cells and SRAM macros, from the description alone. Interfaces, pads, white space are not counted.",
    ),
}
"""By figure: its heading, and how to read it."""

CHOICES = (
    "What sparse attention keeps",
    "Of the pairs of queries and keys that may be seen, those kept; of each query's largest true scores, and "
    "of the true softmax, the shares among them (empty where nothing is predicted); most scores of a query "
    "over the mean. Equal layers and decode steps folded.",
)
"""Heading and reading of the table of `Result.sparse_attention`."""

PAGE = page_template("""\
<section id="operators"><h2>Slowest operators</h2>
<p class="reading">Equal layers and decode steps folded; cycles are what the operators add to the run.</p>
{operators}</section>
<section id="sources"><h2>Where energy and area come from</h2>
<p class="reading">Every constant behind these figures: its value at the accelerator's node, its source.</p>
{sources}</section>
<section id="provenance"><h2>Configuration and provenance</h2>
<p class="reading">What was simulated, resolved to the last default, and with what.</p>
{provenance}</section>
""")

CSS = """
:root { --bg: #fbfbfa; --card: #ffffff; --fg: #1d2127; --soft: #626b76; --line: #e3e5e8; --grid: #e9ebee; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #14171b; --card: #1b1f24; --fg: #e6e8eb; --soft: #9aa4b0; --line: #2d333b; --grid: #2a3037; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--fg); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 64px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
header p { color: var(--soft); margin: 4px 0 20px; }
h2 { font-size: 1.08rem; margin: 0 0 2px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px;
  margin-top: 18px; }
.reading { color: var(--soft); font-size: 0.9rem; margin: 0 0 10px; max-width: 78ch; }
main > dl { display: flex; flex-wrap: wrap; gap: 1px; margin: 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
main > dl > div { background: var(--card); padding: 12px 16px; flex: 1 1 200px; }
dt { color: var(--soft); font-size: 0.85rem; }
dd { margin: 0; }
main > dl dd { font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
small { display: block; color: var(--soft); font-size: 0.8rem; font-weight: 400; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 0 0 4px; font-size: 0.86rem; }
.legend i { display: inline-block; width: 11px; height: 11px; margin-right: 6px; border-radius: 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.86rem; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.name { white-space: normal; min-width: 13em; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.citations { color: var(--soft); font-size: 0.82rem; padding-left: 2.2em; overflow-wrap: anywhere; }
.provenance dt { margin-top: 10px; }
pre, code { font: 0.82rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: var(--bg); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px;
  margin: 4px 0; max-height: 360px; overflow: auto; }
.js-plotly-plot [class*="tick"] text, .js-plotly-plot text[class*="title"], .js-plotly-plot .legendtext,
.js-plotly-plot .bartext-outside { fill: var(--fg) !important; }
.js-plotly-plot .gridlayer path { stroke: var(--grid) !important; }
@media (max-width: 560px) {
  main { padding: 18px 12px 48px; }
  section { padding: 14px 12px; }
  main > dl > div { flex-basis: 40%; }
  main > dl dd { font-size: 1.02rem; }
}
"""
