"""Classes of kernels that run at rates of their own, and the work of each kernel: what a refined roofline multiplies.

Multiply-accumulates alone do not say how long a kernel takes. A product of matrices packs its operands and writes its
result, so that its time is well described by M N K plus so many operations for each element that it reads, writes, or
multiplies with; narrow layers are slow for this reason. What these cost, and how fast a class runs, is fitted
(``kneepoint.hardware_models.published``). Kernels that only move elements are counted in elements.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.kernels import FORMATS, GEOMETRY, KERNEL_KINDS
from kneepoint.hardware_models.operators import FP32_BYTES
from kneepoint.hardware_models.workload import Workload

KernelClass = Literal[
    "pointwise",  # 1x1 convolutions, and linear layers over many rows
    "convolution",  # dense, with a window
    "winograd",  # dense, 3x3 with stride 1: what fast algorithms apply to
    "stem",  # of an image with fewer than 8 channels
    "depthwise",
    "vector",  # a linear layer of a few rows: every weight is read for next to nothing
    "grouped",
    "pool",
    "elementwise",
    "copy",
    "norm",  # softmax, norms and gelu: exponentials, roots and sums along an axis
    "matmul",  # two activations
]
KERNEL_CLASSES: tuple[KernelClass, ...] = get_args(KernelClass)
MULTIPLYING: tuple[KernelClass, ...] = (
    "pointwise", "convolution", "winograd", "stem", "depthwise", "vector", "grouped", "matmul",
)  # fmt: skip
"""Whose operations are multiply-accumulates; others move elements."""
CONVOLUTION, WINOGRAD = KERNEL_CLASSES.index("convolution"), KERNEL_CLASSES.index("winograd")
WORK = ("operations", "input", "output", "weight")
"""What a kernel's work is made of: multiply-accumulates (or elements moved), and elements it reads, writes and has."""

Floats = NDArray[np.float64]
_AT = {name: column for column, name in enumerate(GEOMETRY)}
_CLASS: dict[str, int] = {name: code for code, name in enumerate(KERNEL_CLASSES)}
_FEW_CHANNELS, _FEW_ROWS, _WINOGRAD = 8, 4, 9
_COPIES = ("concat", "copy", "transpose", "resize", "embedding", "quantize", "dequantize", "reorder")
_MOVED = ("elementwise", "copy", "norm")


def class_codes(rows: Workload) -> NDArray[np.int64]:
    """(kernels,): positions in ``KERNEL_CLASSES``; -1 for what no class is known for, and for views."""
    kinds, geometry = np.array(KERNEL_KINDS)[rows.kind], rows.geometry
    window = geometry[:, _AT["kernel_height"]] * geometry[:, _AT["kernel_width"]]
    positions = geometry[:, _AT["out_height"]] * geometry[:, _AT["out_width"]]
    few_rows = geometry[:, _AT["in_height"]] <= _FEW_ROWS
    conv, linear = kinds == "conv", kinds == "linear"
    gelu = (kinds == "activation") & np.array([name == "gelu" for name in rows.functions], bool)
    choices = (
        (conv & (geometry[:, _AT["in_channels"]] < _FEW_CHANNELS), "stem"),
        ((conv & (window == 1) & (positions == 1)) | (linear & few_rows), "vector"),
        ((conv & (window == 1)) | linear, "pointwise"),
        (conv & (window == _WINOGRAD) & (geometry[:, _AT["stride"]] == 1), "winograd"),
        (conv | (kinds == "conv_transpose"), "convolution"),
        (kinds == "depthwise_conv", "depthwise"),
        (kinds == "grouped_conv", "grouped"),
        (kinds == "matmul", "matmul"),
        (np.isin(kinds, ("max_pool", "avg_pool")), "pool"),
        (np.isin(kinds, _COPIES), "copy"),
        (np.isin(kinds, ("softmax", "layer_norm", "group_norm")) | gelu, "norm"),
        (~np.isin(kinds, ("other", "view")), "elementwise"),
    )
    conditions = [condition for condition, _ in choices]
    return np.asarray(np.select(conditions, [np.int64(_CLASS[name]) for _, name in choices], np.int64(-1)))


def work(rows: Workload, codes: NDArray[np.int64]) -> Floats:
    """(kernels, 4): the parts of each kernel's work, in the order of ``WORK``."""
    width = np.where(rows.format == FORMATS.index("int8"), 1, FP32_BYTES)
    read, written, held = rows.input_bytes / width, rows.output_bytes / width, rows.weight_bytes / width
    window = rows.geometry[:, _AT["kernel_height"]] * rows.geometry[:, _AT["kernel_width"]]
    moves = np.isin(codes, [_CLASS[name] for name in _MOVED])
    pools = codes == _CLASS["pool"]
    operations = np.select([moves, pools], [np.maximum(read, written), written * window], rows.macs)
    operations = np.where(codes == _CLASS["copy"], written, operations)
    parts = np.stack([operations, read, written, held], axis=1).astype(np.float64)
    parts[moves | pools, 1:] = 0
    return parts
