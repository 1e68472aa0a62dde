"""What a kernel's latency is learned from: its variant, the terms of a roofline, and descriptive features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.kernels import FORMATS, GEOMETRY, KERNEL_KINDS, LAYOUTS
from kneepoint.hardware_models.workload import Workload

Floats = NDArray[np.float64]

_BLOCK = 16
"""Floats in a 512-bit register, and channels in a block of ONNX Runtime's blocked layout."""
_AT = {name: column for column, name in enumerate(GEOMETRY)}
_CONVOLUTIONS = frozenset({"conv", "grouped_conv", "depthwise_conv"})
_BINARY = frozenset({"add", "mul", "select"})
_NAMED = frozenset({"activation", "reduce", "copy", "select", "reorder", "other", "layer_norm"})
"""Kinds that compute something else for each of their functions."""

TERMS = ("launch", "macs", "padded macs", "input", "weight", "output", "elements", "runs", "rows", "unfolded input")
"""The terms of the roofline, each with a coefficient that is not negative: what can only add to a kernel's latency."""


def variants(workload: Workload) -> tuple[str, ...]:
    """For every kernel, the name of the code that runs it, as far as its row shows: what one fit is made for."""
    return tuple(_variant(workload, row) for row in range(len(workload)))


def _variant(workload: Workload, row: int) -> str:
    kind, function = KERNEL_KINDS[workload.kind[row]], workload.functions[row]
    parts = [kind, FORMATS[workload.format[row]], LAYOUTS[workload.layout[row]] or "plain"]
    geometry = workload.geometry[row]
    if kind in _CONVOLUTIONS:
        parts.append(_convolution_class(geometry))
    elif kind in _BINARY:
        parts.append(_operand_class(geometry, int(workload.elements[row])))
    elif kind == "transpose":
        parts.append("elements" if geometry[_AT["span"]] <= 1 else "runs")
    elif kind in ("quantize", "dequantize"):
        parts.append(f"{_narrow_bytes(workload, row)} bytes")
    if kind in _NAMED:
        parts.append(function)
    return ":".join(filter(None, parts))


def _convolution_class(geometry: NDArray[np.int64]) -> str:
    if geometry[_AT["in_channels"]] < _BLOCK:
        return "few channels"
    return "pointwise" if geometry[_AT["kernel_height"]] * geometry[_AT["kernel_width"]] == 1 else "spatial"


def _operand_class(geometry: NDArray[np.int64], elements: int) -> str:
    """How the smaller operand is spread over the larger."""
    smaller, span = int(geometry[_AT["in_channels"]]), int(geometry[_AT["span"]])
    if smaller >= elements or span == 0:
        return "equal"
    if smaller == 1:
        return "scalar"
    return "vectors" if smaller >= span and smaller % span == 0 and span > 1 else "scalars"


def _narrow_bytes(workload: Workload, row: int) -> int:
    """Bytes of an element on the quantized side."""
    narrow = min(int(workload.input_bytes[row]), int(workload.output_bytes[row]))
    return max(1, round(narrow / max(1, int(workload.elements[row]))))


def terms(workload: Workload) -> Floats:
    """(kernels, terms) in 10^5 operations or bytes, the launch 1: what the coefficients of a roofline multiply."""
    of = {name: workload.geometry[:, column].astype(np.float64) for name, column in _AT.items()}
    outputs = of["out_channels"] / np.maximum(of["groups"], 1)
    inputs = of["in_channels"] / np.maximum(of["groups"], 1)
    padding = _padded(outputs) / np.maximum(outputs, 1) * _padded(inputs, 4) / np.maximum(inputs, 1)
    macs = workload.macs.astype(np.float64)
    pixels = of["batch"] * of["out_height"] * of["out_width"]
    window = of["kernel_height"] * of["kernel_width"]
    runs = np.where(of["span"] > 0, workload.elements / np.maximum(of["span"], 1), 0)
    columns = (
        np.full(len(workload), 1e5),
        macs,
        macs * padding,
        workload.input_bytes,
        workload.weight_bytes,
        workload.output_bytes,
        workload.elements,
        runs * 100,
        (pixels + of["batch"] * of["in_height"]) * 100,
        pixels * window * of["in_channels"],
    )
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1) / 1e5


def features(workload: Workload) -> NDArray[np.float32]:
    """(kernels, features) for the learned part.

    Sizes as logarithms to base 2, what is left of full registers, and where a kernel stands.
    """
    geometry = workload.geometry.astype(np.float64)
    of = {name: geometry[:, column] for name, column in _AT.items()}
    sizes = (workload.macs, workload.input_bytes, workload.weight_bytes, workload.output_bytes, workload.elements)
    pixels = of["batch"] * of["out_height"] * of["out_width"]
    moved = workload.moved_bytes
    derived = (pixels, moved, pixels * of["out_channels"], of["batch"] * of["in_channels"])
    logs = np.log2(1 + np.column_stack((*sizes, geometry, *derived)))
    remainders = (
        of["in_channels"] % _BLOCK / _BLOCK,
        of["out_channels"] % _BLOCK / _BLOCK,
        of["out_width"] % 6,  # pixels that the blocked convolution keeps in registers
        of["in_height"] % 6,  # rows of a product that it keeps there
        np.log2(1 + workload.macs / np.maximum(moved, 1)),
        of["span"] % _BLOCK / _BLOCK,
        np.array([function.startswith("add") for function in workload.functions], np.float64),  # a fused residual
    )
    return np.column_stack((logs, *remainders, workload.surroundings)).astype(np.float32)


def _padded(sizes: Floats, multiple: int = _BLOCK) -> Floats:
    return np.ceil(sizes / multiple) * multiple
