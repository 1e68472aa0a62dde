"""The operators an exported graph is written with, and how torch.onnx translates them.

They exist for the exporter alone: it traces them as opaque calls and writes QuantizeLinear and DequantizeLinear in their
place. ``Widen`` stands for the Cast of a float16 weight until the exporter, which would fold a Cast of a constant, is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxscript import opset21 as op
from torch import Tensor

_LIBRARY = torch.library.Library("kneepoint", "DEF")
_LIBRARY.define("quantize_dequantize(Tensor x, Tensor scale, Tensor zero_point) -> Tensor")
_LIBRARY.define("dequantize(Tensor x, Tensor scale) -> Tensor")
_LIBRARY.define("dequantize_from(Tensor x, Tensor scale, Tensor zero_point) -> Tensor")

MARKER_DOMAIN = "kneepoint.markers"
WIDEN = "Widen"


def _same_shape(x: Tensor, *_: Tensor) -> Tensor:
    """The exporter asks for shapes alone; nothing is ever computed with these operators."""
    return torch.empty_like(x, dtype=torch.float32)


for _name in ("quantize_dequantize", "dequantize", "dequantize_from"):
    _LIBRARY.impl(_name, _same_shape, "CompositeExplicitAutograd")

quantize_dequantize = torch.ops.kneepoint.quantize_dequantize.default
"""(value, float32 scale (), uint8 zero point ()) -> value."""
dequantize = torch.ops.kneepoint.dequantize.default
"""(int8 or int32 constant (channels, ...), float32 scale (channels,)) -> float32; axis 0, zero point 0."""
dequantize_from = torch.ops.kneepoint.dequantize_from.default
"""As ``dequantize``, with the zero points (channels,) written out."""


def widen(x: Tensor) -> Tensor:
    """float16 constant -> float32, as a node of its own that no optimizer touches."""
    return torch.onnx.ops.symbolic(f"{MARKER_DOMAIN}::{WIDEN}", [x], dtype=torch.float32, shape=x.shape, version=1)


def _translate_activation(x: Any, scale: Any, zero_point: Any) -> Any:
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero_point), scale, zero_point)


def _translate_constant(x: Any, scale: Any) -> Any:
    return op.DequantizeLinear(x, scale, axis=0)


def _translate_constant_from(x: Any, scale: Any, zero_point: Any) -> Any:
    return op.DequantizeLinear(x, scale, zero_point, axis=0)


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    quantize_dequantize: _translate_activation,
    dequantize: _translate_constant,
    dequantize_from: _translate_constant_from,
}
