"""The style sheet and the script of the HTML report: constants, into which nothing of a run goes."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f8fa; --text: #1c2430; --soft: #5b6675; --line: #d9dfe6;
  --accent: #3b82f6; --knee: #b45309; --knee-paper: #fef6e0; --grid: rgba(100, 116, 139, 0.18);
}
@media (prefers-color-scheme: dark) {
  :root:not([data-print]) {
    --paper: #11161d; --panel: #1a212b; --text: #e6ebf2; --soft: #9aa7b7; --line: #2e3947;
    --accent: #60a5fa; --knee: #fbbf24; --knee-paper: #2e2612; --grid: rgba(148, 163, 184, 0.18);
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 1500px; background: var(--paper); color: var(--text);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 0.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 0.6rem; }
h3 { font-size: 0.9rem; margin: 0 0 0.2rem; font-weight: 600; color: var(--soft); overflow-wrap: anywhere; }
p { max-width: 78ch; margin: 0.4rem 0; overflow-wrap: anywhere; }
.note { color: var(--soft); font-size: 0.86rem; }
.tiles { display: flex; flex-wrap: wrap; gap: 0.8rem; margin: 1.2rem 0 0; padding: 0; list-style: none; }
.tiles li { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 0.6rem 1rem; }
.tiles b { display: block; font-size: 1.3rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: 0.84rem; overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 390px), 1fr)); gap: 1rem; }
.panel { min-width: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 0.8rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.35rem; margin: 0.6rem 0 0.8rem; }
.legend button {
  display: inline-flex; align-items: center; gap: 0.4rem; padding: 0.15rem 0.6rem; border-radius: 99px; cursor: pointer;
  border: 1px solid var(--line); background: var(--panel); color: var(--text); font: inherit; font-size: 0.84rem;
}
.legend button[aria-pressed="false"] { opacity: 0.45; text-decoration: line-through; }
.legend svg { width: 14px; height: 14px; flex: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 0.3rem 0; }
th, td { padding: 0.4rem 0.6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { vertical-align: bottom; font-weight: 600; }
th button { all: unset; cursor: pointer; }
th button:focus-visible, summary:focus-visible, .legend button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.id { white-space: nowrap; }
tr.knee td { background: var(--knee-paper); }
tr.infeasible td { color: var(--soft); }
tr.total td { font-weight: 600; }
tr.hover td { background: color-mix(in srgb, var(--accent) 16%, transparent); }
.star { color: var(--knee); }
.tag { border: 1px solid var(--line); border-radius: 4px; padding: 0 0.3rem; font-size: 0.76rem; white-space: nowrap; }
.error { color: var(--soft); font-size: 0.92em; }
.reason { overflow-wrap: anywhere; min-width: 16rem; }
details.policy summary { display: inline-flex; gap: 0.5rem; align-items: center; list-style: none; cursor: pointer; }
details.policy summary::-webkit-details-marker { display: none; }
details.policy ul { margin: 0.3rem 0 0; padding: 0; list-style: none; font-size: 0.8rem; columns: 9rem 2; }
details.policy[open] ul { width: 22rem; max-width: 80vw; }
details.policy li { overflow-wrap: anywhere; break-inside: avoid; }
.mean { min-width: 2.4rem; text-align: right; }
.strip { border-bottom: 1px solid var(--line); }
.bits span { display: inline-flex; align-items: center; gap: 0.3rem; margin-right: 0.9rem; }
.bits i { width: 12px; height: 12px; border: 1px solid var(--line); }
details > summary { cursor: pointer; }
pre {
  overflow-x: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 0.8rem 1rem;
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
}
code { font: 0.94em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.columns { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 1fr); gap: 1.5rem; align-items: start; }
@media (max-width: 760px) {
  body { padding: 1.2rem 0.9rem 3rem; }
  .columns { grid-template-columns: minmax(0, 1fr); }
}
@media print {
  @page { margin: 14mm; }
  body { padding: 0; font-size: 11px; max-width: none; }
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .panel, tr, .tiles li { break-inside: avoid; }
  h2 { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8.5px; }
  th, td { padding: 0.2rem 0.3rem; }
  svg.strip { max-width: 80px; }
  .modebar-container { display: none; }
  .legend button[aria-pressed="false"] { display: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

SCRIPT = """
"use strict";
(() => {
  const root = document.documentElement;
  const charts = [...document.querySelectorAll("[data-figure]")];
  const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function theme() {
    const axis = { gridcolor: color("--grid"), tickcolor: color("--soft") };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": color("--text"),
      "hoverlabel.bgcolor": color("--paper"), "hoverlabel.font.color": color("--text"),
      "hoverlabel.bordercolor": color("--soft"), "hoverlabel.align": "left",
      "modebar.color": color("--soft"), "modebar.activecolor": color("--text"), "modebar.bgcolor": "rgba(0,0,0,0)",
      "xaxis.gridcolor": axis.gridcolor, "yaxis.gridcolor": axis.gridcolor,
    };
  }

  function draw(chart) {
    const figure = JSON.parse(document.getElementById(chart.dataset.figure).textContent);
    const config = {
      responsive: true, displaylogo: false, scrollZoom: false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "autoScale2d", "resetScale2d"]],
    };
    delete figure.layout.width;
    Plotly.newPlot(chart, figure.data, figure.layout, config);
    Plotly.relayout(chart, theme());
    chart.on("plotly_hover", (event) => highlight(event.points[0].customdata, true));
    chart.on("plotly_unhover", (event) => highlight(event.points[0].customdata, false));
  }

  function highlight(id, on) {
    for (const row of document.querySelectorAll("tr[data-id]")) {
      row.classList.toggle("hover", on && row.dataset.id === id);
    }
  }

  function point(id) {
    for (const chart of charts) {
      const found = [];
      (chart.data || []).forEach((trace, curveNumber) => {
        const pointNumber = (trace.customdata || []).indexOf(id);
        if (pointNumber >= 0 && trace.visible !== false) found.push({ curveNumber, pointNumber });
      });
      if (found.length) Plotly.Fx.hover(chart, found.slice(-1));
    }
  }

  function toggle(button) {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const chart of charts) {
      const traces = chart.data.flatMap((trace, at) => (trace.meta === button.dataset.layer ? [at] : []));
      if (traces.length) Plotly.restyle(chart, { visible: shown }, traces);
    }
  }

  function sort(head) {
    const table = head.closest("table");
    const body = table.tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const numeric = [...body.rows].every((row) => row.cells[column].dataset.key !== undefined);
    const compare = numeric ? (a, b) => key(a) - key(b) : (a, b) => key(a).localeCompare(key(b));
    body.append(...[...body.rows].sort((a, b) => (up ? 1 : -1) * compare(a, b)));
  }

  function print(on) {
    root.toggleAttribute("data-print", on);
    for (const chart of charts) {
      const width = on ? Number(chart.dataset.printWidth) : undefined;
      Plotly.relayout(chart, { ...theme(), width, autosize: !on, "font.size": on ? 9 : 12 });
    }
  }

  charts.forEach(draw);
  document.querySelectorAll(".legend button").forEach((one) => one.addEventListener("click", () => toggle(one)));
  document.querySelectorAll("table.sortable th").forEach((head) => {
    head.querySelector("button").addEventListener("click", () => sort(head));
  });
  document.querySelectorAll("tr[data-id]").forEach((row) => {
    row.addEventListener("mouseenter", () => point(row.dataset.id));
    row.addEventListener("mouseleave", () => charts.forEach((chart) => Plotly.Fx.unhover(chart)));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    charts.forEach((chart) => Plotly.relayout(chart, theme()));
  });
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
})();
"""
