"""What hardware_models.py found, as a picture: predicted against measured, and every case's error."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from benchmarks.hardware_models_judging import MODELS, errors

COLUMN = MODELS["calibrated"]
_MARKS = (
    ("o", "#0072b2"),
    ("s", "#d55e00"),
    ("D", "#009e73"),
    ("^", "#cc79a7"),
    ("P", "#b8860b"),
    ("X", "#56b4e9"),
    ("*", "#5b3a8c"),
)
"""Shape and colour both tell families apart."""
_SHOWN_ERROR = 0.35
"""Errors beyond it are drawn at the edge."""
_BAND: dict[str, Any] = {"color": "#3b82f6", "alpha": 0.13, "linewidth": 0.0}


def picture(frame: pd.DataFrame) -> bytes:
    """A PNG: predicted against measured on the left, every case's error on the right, the 10 % band in both."""
    figure = Figure(figsize=(12, 5.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    times = frame[[COLUMN, "measured_us"]].to_numpy() / 1e3
    ends = (0.8 * times.min(), 1.25 * times.max())
    for (marker, color), (family, rows) in zip(_MARKS, frame.groupby("family", sort=False), strict=False):
        style: dict[str, Any] = {
            "marker": marker,
            "color": color,
            "s": 32,
            "alpha": 0.75,
            "edgecolors": "white",
            "linewidths": 0.5,
        }
        left.scatter(rows["measured_us"] / 1e3, rows[COLUMN] / 1e3, label=str(family), **style)
        error = errors(rows, COLUMN).clip(-_SHOWN_ERROR, _SHOWN_ERROR)
        right.scatter(rows["measured_us"] / 1e3, error, **style)
    _draw_latency(left, ends)
    _draw_error(right, ends)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_latency(axes: Axes, ends: tuple[float, float]) -> None:
    axes.fill_between(ends, [0.9 * end for end in ends], [1.1 * end for end in ends], label="within 10 %", **_BAND)
    axes.plot(ends, ends, color="#555555", linewidth=0.8, linestyle=":")
    axes.set(title="latency", ylabel="predicted, ms", yscale="log", ylim=ends)
    _draw_measured(axes, ends)
    axes.yaxis.set_major_formatter(FuncFormatter(_milliseconds))


def _draw_error(axes: Axes, ends: tuple[float, float]) -> None:
    axes.fill_between(ends, [-0.1, -0.1], [0.1, 0.1], **_BAND)
    axes.axhline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    axes.set(title="error of the prediction", ylabel="predicted / measured - 1")
    axes.set_ylim(-1.06 * _SHOWN_ERROR, 1.06 * _SHOWN_ERROR)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    _draw_measured(axes, ends)


def _draw_measured(axes: Axes, ends: tuple[float, float]) -> None:
    axes.set(xlabel="measured, ms", xscale="log", xlim=ends)
    axes.xaxis.set_major_formatter(FuncFormatter(_milliseconds))
    axes.grid(color="#888888", alpha=0.25)


def _milliseconds(value: float, _: int | None) -> str:
    return f"{value:g}"
