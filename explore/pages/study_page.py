"""The words, the looks and the script of a study's page."""

from __future__ import annotations

from tilewright.explore.pages.page import CSS
from tilewright.explore.pages.pieces import page_template

READINGS = {
    "front": (
        "Pareto front",
        "A dot per point; those on the front are not beaten in every objective by any other. The star is the "
        "knee, where giving up a little of one objective no longer buys much of the other. Click on a point "
        "to see what it is.",
    ),
    "parallel": (
        "Parameters and objectives",
        "A line per point, the front's on top. Drag along an axis to keep only the lines that pass there; "
        "click on the axis to let go.",
    ),
    "importance": (
        "What matters",
        "How much of an objective's spread each parameter explains alone (omega squared of its logarithm); "
        "what is missing to 100 % is how parameters act together. With Optuna installed, also how much a "
        "parameter decides which points are among the best tenth (PED-ANOVA). All points count, by their "
        "bounds where they were not simulated.",
    ),
    "swing": (
        "Which way it goes",
        "Each dot is a value of the parameter, larger dots are larger values: the mean of the objective over "
        "all points with that value, against the mean of all points.",
    ),
    "tradeoffs": (
        "Workload against workload",
        "A row per workload, a dot per point of the front: its latency there, as a multiple of the best that "
        "any point has there.",
    ),
    "progress": (
        "How the front grew",
        "The share of the space between the best and the worst figures that the front had conquered "
        "(hypervolume), by number of points. A line that has long been flat means that more points change "
        "little.",
    ),
}
"""By figure: its heading, and how to read it."""

PRESETS = (
    "Diamonds are shipped machines of about the knee's size, on the knee's work{work} at the same fidelity, "
    "each in its own number format."
)

POINT_PANEL = """<div id="point" class="point" aria-live="polite">
<p class="reading">No point chosen: click on one above, or on a row of the table below.</p></div>
"""

PAGE = page_template(
    """\
<section id="provenance"><h2>The study</h2>
<p class="reading">What was searched, and how.</p>
{provenance}</section>
""",
    links='<link rel="icon" href="data:,">\n',
    scripts="""\
<script type="application/json" id="points">{points}</script>
<script>{script}</script>
""",
)

STUDY_CSS = (
    CSS
    + """
.js-plotly-plot .parcoords text, .js-plotly-plot .textpoint text { fill: var(--fg) !important;
  text-shadow: none !important; }
.js-plotly-plot .parcoords .axis .domain, .js-plotly-plot .parcoords .axis line {
  stroke: var(--soft) !important; }
.wide { min-width: var(--least, 0); }
.point { border-top: 1px solid var(--line); margin-top: 10px; padding-top: 12px; }
.point h3, h3 { font-size: 0.98rem; margin: 14px 0 4px; }
.point h3:first-child { margin-top: 0; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 4px 28px; }
.bar { display: flex; flex-wrap: wrap; gap: 8px; margin: 8px 0; }
button { font: inherit; font-size: 0.86rem; color: var(--fg); background: var(--bg); cursor: pointer;
  border: 1px solid var(--line); border-radius: 6px; padding: 5px 12px; }
button:hover { border-color: var(--soft); }
tr[data-point] { cursor: pointer; }
tr[data-point]:hover, tr.chosen { background: var(--grid); }
.reasons { margin: 4px 0 10px; padding-left: 1.2em; font-size: 0.9rem; }
.error { color: #c8553d; overflow-wrap: anywhere; }
td.wrap { white-space: normal; overflow-wrap: anywhere; }
.command { white-space: pre-wrap; }
div + .reading { margin-top: 12px; }
@media (max-width: 560px) { .pair { grid-template-columns: minmax(0, 1fr); } }
"""
)

SCRIPT = """
(function () {
  const points = JSON.parse(document.getElementById("points").textContent);
  const panel = document.getElementById("point");
  function add(parent, tag, text, cls) {
    const node = parent.appendChild(document.createElement(tag));
    if (text !== undefined) node.textContent = text;
    if (cls) node.className = cls;
    return node;
  }
  function table(parent, title, rows) {
    const box = add(parent, "div");
    add(box, "h3", title);
    const body = add(add(box, "div", undefined, "scroll"), "table");
    for (const [name, value] of Object.entries(rows)) {
      const row = add(body, "tr");
      add(row, "td", name, "wrap");
      add(row, "td", value, "n");
    }
  }
  function button(parent, text, action) {
    const node = add(parent, "button", text);
    node.type = "button";
    node.addEventListener("click", () => action(node));
  }
  async function copy(text, node) {
    const was = node.textContent;
    try { await navigator.clipboard.writeText(text); }
    catch (error) {
      const area = add(document.body, "textarea", text);
      area.select(); document.execCommand("copy"); area.remove();
    }
    node.textContent = "copied";
    setTimeout(() => { node.textContent = was; }, 1200);
  }
  function save(text, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/yaml" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }
  function show(name) {
    const found = points[name];
    if (!found) return;
    panel.replaceChildren();
    const pair = add(panel, "div", undefined, "pair");
    table(pair, "Point " + name, found.figures);
    table(pair, "Parameters", found.parameters);
    if (found.fpga) {
      add(panel, "h3", "On FPGAs");
      const devices = add(panel, "div", undefined, "pair");
      for (const [title, rows] of Object.entries(found.fpga.tables)) table(devices, title, rows);
      for (const note of found.fpga.notes) add(panel, "p", note, "reading");
      if (found.fpga.command) add(panel, "pre", found.fpga.command, "command");
    }
    add(panel, "h3", "Run it again");
    const command = found.commands.join("\\n");
    add(panel, "pre", command, "command");
    if (found.yaml) {
      add(panel, "h3", "Its accelerator");
      const bar = add(panel, "div", undefined, "bar");
      button(bar, "copy YAML", (node) => copy(found.yaml, node));
      button(bar, "download YAML", () => save(found.yaml, "point-" + name + ".yaml"));
      add(panel, "pre", found.yaml, "yaml");
    }
    for (const row of document.querySelectorAll("tr[data-point]"))
      row.classList.toggle("chosen", row.dataset.point === name);
  }
  for (const plot of document.querySelectorAll(".front .js-plotly-plot"))
    plot.on("plotly_click", (event) => show(event.points[0].customdata));
  for (const row of document.querySelectorAll("tr[data-point]"))
    row.addEventListener("click", () => { show(row.dataset.point); });
})();
"""
