"""The operators an exported graph is written with, and how torch.onnx translates them.

They exist for the exporter alone: it traces them as opaque calls and writes QuantizeLinear and DequantizeLinear in
their place. ``Widen`` stands for the Cast of a float16 weight until the exporter, which would fold a Cast of a
constant, is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxscript import opset21 as op
from torch import Tensor

MARKER_DOMAIN = "kneepoint.markers"
WIDEN = "Widen"


# The exporter asks for shapes and types alone; nothing is ever computed with the bodies of these three.


@torch.library.custom_op("kneepoint::quantize", mutates_args=())
def _quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.uint8)


@torch.library.custom_op("kneepoint::dequantize", mutates_args=())
def _dequantize(x: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


@torch.library.custom_op("kneepoint::dequantize_along", mutates_args=())
def _dequantize_along(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


_quantize.register_fake(lambda x, scale, zero_point: torch.empty_like(x, dtype=torch.uint8))
_dequantize.register_fake(lambda x, scale: torch.empty_like(x, dtype=torch.float32))
_dequantize_along.register_fake(lambda x, scale, zero_point, axis: torch.empty_like(x, dtype=torch.float32))

quantize = torch.ops.kneepoint.quantize.default
"""(value, float32 scale (), uint8 zero point ()) -> uint8."""
dequantize = torch.ops.kneepoint.dequantize.default
"""(int8 or int32 constant (channels, ...), float32 scale (channels,)) -> float32; axis 0, zero point 0."""
dequantize_along = torch.ops.kneepoint.dequantize_along.default
"""(integers, float32 scale, zero point, axis) -> float32; scale and zero point are () or (channels along axis,)."""


def widen(x: Tensor) -> Tensor:
    """float16 constant -> float32, as a node of its own that no optimizer touches."""
    return torch.onnx.ops.symbolic(f"{MARKER_DOMAIN}::{WIDEN}", [x], dtype=torch.float32, shape=x.shape, version=1)


def _translate_quantize(x: Any, scale: Any, zero_point: Any) -> Any:
    return op.QuantizeLinear(x, scale, zero_point)


def _translate_constant(x: Any, scale: Any) -> Any:
    return op.DequantizeLinear(x, scale, axis=0)


def _translate_constant_along(x: Any, scale: Any, zero_point: Any, axis: int) -> Any:
    return op.DequantizeLinear(x, scale, zero_point, axis=axis)


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    quantize: _translate_quantize,
    dequantize: _translate_constant,
    dequantize_along: _translate_constant_along,
}
