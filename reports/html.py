"""The report of a run: one HTML file that holds everything it shows and opens without a network.

The file is safe to open whatever the run's files say: names are escaped where they are written, figures travel as JSON
in which no tag can end, and a content security policy lets only the two scripts of this module run and nothing load.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from kneepoint.reports.axis_ranges import out_of_sight
from kneepoint.reports.figures import Layer, front_figure, hypervolume_figure, layers
from kneepoint.reports.files import write_atomically
from kneepoint.reports.html_assets import SCRIPT, STYLE
from kneepoint.reports.html_tables import baselines_html, failures_html, front_table_html, safe, versions_html
from kneepoint.reports.run_view import RunView
from kneepoint.reports.summary import knee_gains, summary_lines
from kneepoint.reports.wording import counted, number, score_text

REPORT_NAME = "report.html"
# The markers of the figures as SVG shapes in a box from -7 to 7, for the legend.
_SHAPES = {
    "circle": '<circle r="5"/>',
    "square": '<path d="M-5-5H5V5H-5Z"/>',
    "triangle-up": '<path d="M0-6 6 5H-6Z"/>',
    "triangle-down": '<path d="M0 6 6-5H-6Z"/>',
    "diamond": '<path d="M0-7 7 0 0 7-7 0Z"/>',
    "cross": '<path d="M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z"/>',
    "x": '<path transform="rotate(45)" d="M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z"/>',
    "pentagon": '<path d="M0-6 6-1 4 6H-4L-6-1Z"/>',
    "hexagram": '<path d="M0-7 2-3H6L4 0 6 3H2L0 7-2 3H-6L-4 0-6-3H-2Z"/>',
}


def write_report(directory: str | os.PathLike[str]) -> Path:
    """Writes ``report.html`` into a run directory, whole or not at all.

    Args:
        directory: The run directory; a run that is not finished yet is shown as far as it is.

    Returns:
        The path of the report.

    Raises:
        RunError: If the run directory is missing or malformed, or cannot be written to.
    """
    view = RunView.read(directory)
    path = view.directory / REPORT_NAME
    write_atomically(path, report_html(view).encode())
    return path


def report_html(view: RunView) -> str:
    """The whole report as text."""
    plotly_js = get_plotlyjs()
    title = f"{safe(view.front.task)}: the Pareto front"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_security_policy(plotly_js)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<script>{plotly_js}</script>
</head>
<body>
{_header(view, title)}
<main>
{_front_section(view)}
{_section("The front, candidate by candidate", front_table_html(view))}
{_section("Against the baselines", baselines_html(view))}
{_hypervolume_section(view)}
{_section("Failed trials", failures_html(view))}
{_section("The job", _job(view))}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _security_policy(plotly_js: str) -> str:
    """Nothing loads, and only the scripts with these digests run; plotly styles its elements in place."""
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in (plotly_js, SCRIPT))
    return f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>" if content else ""


def _header(view: RunView, title: str) -> str:
    summary = " ".join(safe(line) for line in summary_lines(view))
    return f"<header><h1>{title}</h1>\n<p>{summary}</p>\n{_tiles(view)}</header>"


def _tiles(view: RunView) -> str:
    """The knee in a few large figures."""
    if view.knee is None:
        return ""
    quality = view.quality.name
    tiles = [(score_text(view.knee.scores[quality]), f"{quality} of the knee")]
    if quality in view.front.teacher:
        tiles[0] = (tiles[0][0], f"{tiles[0][1]}; teacher {number(view.front.teacher[quality].value)}")
    for gain in knee_gains(view, view.knee):
        figure, _, rest = gain.partition(" ")
        tiles.append((figure, f"{rest} than the teacher"))
    items = "".join(f"<li><b>{safe(figure)}</b><span>{safe(text)}</span></li>" for figure, text in tiles)
    return f'<ul class="tiles">{items}</ul>'


def _front_section(view: RunView) -> str:
    if not view.costs:
        return ""
    legend = "".join(_legend_button(layer) for layer in layers(view))
    panels = "".join(
        _panel(
            f"front-{at}", f"{view.quality.name} against {cost.name}", front_figure(view, cost.name), print_width=300
        )
        for at, cost in enumerate(view.costs)
    )
    return _section(
        "The front", f'<div class="legend">{legend}</div><div class="panels">{panels}</div>{_front_note(view)}'
    )


def _front_note(view: RunView) -> str:
    hidden = out_of_sight(view)
    sentences = [
        "The line is what the front attains with these two objectives alone; "
        "members below it earn their place by another.",
        "Bars are one standard error.",
        f"{counted(hidden, 'trial or baseline', 'trials and baselines')} with worse {safe(view.quality.name)} "
        f"{'lies' if hidden == 1 else 'lie'} outside the charts: double-click one to see everything."
        if hidden
        else "",
    ]
    return f'<p class="note">{" ".join(filter(None, sentences))}</p>'


def _legend_button(layer: Layer) -> str:
    shape = _SHAPES[layer.symbol.removesuffix("-open")]
    paint = (
        f'fill="none" stroke="{layer.color}" stroke-width="1.5"'
        if layer.symbol.endswith("-open")
        else f'fill="{layer.color}"'
    )
    icon = f'<svg viewBox="-7 -7 14 14" aria-hidden="true" {paint}>{shape}</svg>'
    return f'<button type="button" aria-pressed="true" data-layer="{layer.key}">{icon}{safe(layer.label)}</button>'


def _hypervolume_section(view: RunView) -> str:
    if not view.searched:
        return ""
    note = (
        '<p class="note">The share of the space between the worst and the ideal scores that is dominated by what was '
        "measured so far. Constraints are not applied and every measured fidelity counts, so that the end "
        "may lie above the hypervolume of the front.</p>"
    )
    return _section(
        "Hypervolume over the trials",
        f"{_panel('hypervolume', 'hypervolume after each trial', hypervolume_figure(view), print_width=620)}{note}",
    )


def _panel(key: str, title: str, figure: go.Figure, print_width: int) -> str:
    """A figure, and its data in an element that no name can close."""
    figure.update_layout(showlegend=False)
    data = _inert(str(figure.to_json()))
    return (
        f'<div class="panel"><h3>{safe(title)}</h3>'
        f'<div role="img" aria-label="{safe(title)}" data-figure="{key}" data-print-width="{print_width}"></div>'
        f'<script type="application/json" id="{key}">{data}</script></div>'
    )


def _inert(json_text: str) -> str:
    """The JSON with every character that HTML could take for markup written as an escape."""
    for char in "<>&":
        json_text = json_text.replace(char, f"\\u{ord(char):04x}")
    return json_text


def _job(view: RunView) -> str:
    table = versions_html(_versions(view))
    job = f"<pre>{safe_lines(view.job_text)}</pre>"
    return f'<div class="columns"><div>{job}</div><div>{table}</div></div>' if table else job


def safe_lines(text: str) -> str:
    """Text of several lines as HTML."""
    return "\n".join(safe(line.expandtabs()) for line in text.splitlines())


def _versions(view: RunView) -> Iterator[tuple[str, str]]:
    """The versions in the job; values that are no scalars are not versions."""
    versions = view.job.get("versions")
    for name, version in versions.items() if isinstance(versions, dict) else ():
        if isinstance(version, str | int | float):
            yield str(name), str(version)
