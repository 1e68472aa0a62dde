"""Perplexity of a decoder against its size and against the latency of a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_AXES = {"size_mb": "stored constants, MB", "token_ms": "one token on x86-server, predicted ms"}
_SLOWEST = 2.0
"""Latencies beyond so many times the fastest uniform format are off the panel."""
_IN_BYTES = "activations in bytes, as w4a8-dynamic-g32"
_FAMILIES = {"weights alone, as w4-g32": ("s", 6, 6), _IN_BYTES: ("o", 6, -12)}
"""Marker, and where bits stand beside it, in points."""


def draw(front: Sequence[Mapping[str, Any]], uniform: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each cost: the front as points, uniform formats with their bits beside them.

    Args:
        front: With ``perplexity``, ``size_mb`` and ``token_ms``.
        uniform: The same with ``name``.
        path: Of the PNG.
    """
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(1, len(_AXES), sharey=True)
    fastest = min(float(one["token_ms"]) for one in uniform)
    shown = [one for one in uniform if one["token_ms"] < _SLOWEST * fastest]
    for panel, (cost, label) in zip(panels, _AXES.items(), strict=True):
        across, up = [one[cost] for one in front], [one["perplexity"] for one in front]
        panel.scatter(across, up, color="black", s=16, zorder=3, label="the front of the search")
        _draw_uniform(panel, shown if cost == "token_ms" else uniform, cost)
        panel.set(xlabel=label)
        panel.grid(visible=True, alpha=0.25)
    panels[0].set(ylabel="perplexity, validation")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def _draw_uniform(panel: Axes, uniform: Sequence[Mapping[str, Any]], cost: str) -> None:
    for family, (marker, right, above) in _FAMILIES.items():
        points = [one for one in uniform if ("a8" in one["name"]) == (family == _IN_BYTES)]
        across, up = [one[cost] for one in points], [one["perplexity"] for one in points]
        panel.scatter(across, up, marker=marker, facecolors="none", edgecolors="C3", s=46, label=f"uniform, {family}")
        for one in points:
            bits = one["name"].removeprefix("w").partition("-")[0].partition("a")[0]
            place = (one[cost], one["perplexity"])
            panel.annotate(bits, place, (right, above), textcoords="offset points", fontsize=8, color="C3")
