"""Predicted against published latency of families left out, a panel for every kind of device."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kneepoint.hardware_models.published.validation import Validation

_PANELS = (
    ("boards and phones", ("raspberry", "pixel-3-tflite", "pixel-4", "snapdragon-855-ncnn", "snapdragon-865-onnx",
                           "jetson-nano-ncnn", "jetson-orin-nano-ncnn")),
    ("servers and laptops", ("graviton", "xeon", "apple", "jetson-agx-orin-tflite")),
    ("microcontrollers", ("stm32",)),
    ("GPUs and NPUs", ("nvidia", "coral", "ascend", "pixel-3-dsp", "snapdragon-865-npu", "jetson-agx-orin-tensorrt",
                       "jetson-nano-tensorrt")),
)  # fmt: skip
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#5b3a8c", "#666666", "#8c564b", "#1a7f37",
           "#e377c2", "#17becf")  # fmt: skip
_MARKS = {"fp32": "o", "int8": "s"}


def picture(found: Mapping[str, Validation]) -> bytes:
    """A PNG; circles are floats, squares integers, the band is 10 %."""
    figure = Figure(figsize=(13, 11), dpi=130, layout="constrained")
    for axes, (title, names) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        _panel(axes, title, {name: entry for name, entry in found.items() if name.startswith(names)})
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _panel(axes: Axes, title: str, found: Mapping[str, Validation]) -> None:
    ends = (float("inf"), 0.0)
    for color, (name, entry) in zip(_COLORS, found.items(), strict=False):
        for precision, mark in _MARKS.items():
            pairs = [row.left_out for row in entry.rows if row.sample.system.precision == precision and row.left_out]
            if not pairs:
                continue
            published, predicted = [pair.published for pair in pairs], [pair.predicted for pair in pairs]
            label = name if precision == "fp32" or not _has_floats(entry) else None
            axes.scatter(published, predicted, s=14, marker=mark, color=color, alpha=0.7, linewidths=0, label=label)
            ends = (min(ends[0], *published), max(ends[1], *published))
    line = [0.7 * ends[0], 1.4 * ends[1]]
    axes.fill_between(line, [0.9 * end for end in line], [1.1 * end for end in line], color="#3b82f6", alpha=0.15, lw=0)
    axes.plot(line, line, color="#3b82f6", linewidth=0.8)
    axes.set(
        xscale="log", yscale="log", title=title, xlabel="published, ms", ylabel="predicted, ms", xlim=line, ylim=line
    )
    axes.legend(fontsize=7, loc="upper left", frameon=False)
    axes.grid(visible=True, alpha=0.2)


def _has_floats(entry: Validation) -> bool:
    return any(row.sample.system.precision == "fp32" and row.left_out for row in entry.rows)
