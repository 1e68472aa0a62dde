"""Hypervolume against evaluation-equivalents and wall-clock, a panel for every problem."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.search_methods import OURS, RIVALS

if TYPE_CHECKING:
    from benchmarks.search_page import Curve

METHODS = (OURS, *RIVALS)
_COLUMNS = 3
_PANEL = (4.6, 3.4)  # inches
_QUARTILES = (25, 75)


def draw(problems: Mapping[str, Mapping[str, Curve]], path: Path) -> None:
    """A panel a problem, a line a method: the median over seeds, and the range of the middle half."""
    if not problems:
        return
    columns = min(_COLUMNS, len(problems))
    rows = -(-len(problems) // columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(problems) :]:
        panel.axis("off")
    for panel, (name, curves) in zip(panels, problems.items(), strict=False):
        _draw_curves(panel, curves)
        panel.set(title=name, xscale="log", xlabel="evaluation-equivalents", ylabel="hypervolume")
        panel.grid(visible=True, alpha=0.3)
        _draw_seconds(panel, curves)
    drawn = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=8, frameon=False)
    figure.savefig(path, dpi=110)


def _draw_seconds(panel: Axes, curves: Mapping[str, Curve]) -> None:
    """The same axis in seconds: an evaluation-equivalent is the wall time of one evaluation."""
    each = float(np.median([curve.evaluation_seconds for curve in curves.values()]))
    there, back = (lambda taken: np.asarray(taken) * each), (lambda seconds: np.asarray(seconds) / each)
    above = panel.secondary_xaxis("top", functions=(there, back))
    above.set_xlabel("seconds", fontsize="small")
    above.tick_params(labelsize="small")


def _draw_curves(panel: Axes, curves: Mapping[str, Curve]) -> None:
    for method, curve in curves.items():
        place = METHODS.index(method)
        across, color = np.median(curve.equivalents, axis=0), "black" if place == 0 else f"C{place - 1}"
        median, (low, high) = np.median(curve.volumes, axis=0), np.percentile(curve.volumes, _QUARTILES, axis=0)
        panel.plot(across, median, label=method, color=color, linewidth=2.4 if place == 0 else 1.2)
        panel.fill_between(across, low, high, alpha=0.15, color=color, linewidth=0)
