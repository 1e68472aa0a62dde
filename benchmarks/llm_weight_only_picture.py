"""Perplexity of a decoder against its size and against the latency of a token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_AXES = {"size_mb": "stored constants, MB", "token_ms": "one token on x86-server, predicted ms"}
_MARKERS = {"weights alone (w4-g32)": "s", "activations in bytes (w4a8-dynamic-g32)": "o"}


def draw(front: list[Mapping[str, Any]], uniform: list[Mapping[str, Any]], path: Path) -> None:
    """A panel for each cost, the front as points and uniform formats with their names.

    Args:
        front: With ``perplexity``, ``error``, ``size_mb`` and ``token_ms``.
        uniform: The same with ``name`` and ``family``.
        path: Of the PNG.
    """
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(1, len(_AXES))
    for panel, (cost, label) in zip(panels, _AXES.items(), strict=True):
        _draw_front(panel, front, cost)
        _draw_uniform(panel, uniform, cost)
        panel.set(xlabel=label, ylabel="perplexity, validation", xscale="log", yscale="log")
        panel.grid(visible=True, which="both", alpha=0.25)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def _draw_front(panel: Axes, front: list[Mapping[str, Any]], cost: str) -> None:
    members = sorted(front, key=lambda one: float(one[cost]))
    across = [one[cost] for one in members]
    up = [one["perplexity"] for one in members]
    errors = [2 * (one["error"] or 0.0) for one in members]
    panel.errorbar(across, up, yerr=errors, fmt="none", ecolor="black", alpha=0.2)
    panel.scatter(across, up, color="black", s=16, zorder=3, label="the front of the search")


def _draw_uniform(panel: Axes, uniform: list[Mapping[str, Any]], cost: str) -> None:
    for family, marker in _MARKERS.items():
        points = [one for one in uniform if one["family"] == family and cost in one]
        across, up = [one[cost] for one in points], [one["perplexity"] for one in points]
        panel.scatter(across, up, marker=marker, facecolors="none", edgecolors="C3", s=46, label=f"uniform, {family}")
        for one in points:
            panel.annotate(one["name"], (one[cost], one["perplexity"]), (5, 4), textcoords="offset points", fontsize=7)
