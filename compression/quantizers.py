"""The arithmetic of quantization, in the semantics of ONNX's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import torch
from torch import Tensor

from kneepoint.spaces.quant_plan import ActivationQuant, WeightQuant

_SMALLEST = 1e-8  # a channel of zeros still needs a scale
_CLIP_RATIOS = torch.linspace(0.2, 1.0, 33)
_BIAS_LIMIT = 2**30


def weight_scale(weight: Tensor, quant: WeightQuant) -> Tensor:
    """One scale an output channel (axis 0).

    8 bits cover the largest weight; fewer bits take the clipping that minimizes the squared error of the channel.

    Args:
        weight: (out channels, ...).
        quant: The integer format; its own scale is ignored.

    Returns:
        (out channels,) float32, positive.
    """
    rows = weight.detach().flatten(1)
    largest = rows.abs().amax(dim=1).clamp_min(_SMALLEST)
    if quant.bits >= 8:
        return largest / quant.limit
    candidates = largest.unsqueeze(0) * _CLIP_RATIOS.unsqueeze(1) / quant.limit  # (ratios, channels)
    errors = torch.stack([(_round_trip(rows, scale, quant.limit) - rows).square().sum(dim=1) for scale in candidates])
    return candidates.gather(0, errors.argmin(dim=0, keepdim=True)).squeeze(0)


def quantize_weight(weight: Tensor, quant: WeightQuant) -> Tensor:
    """The integers an artifact stores: (out channels, ...) int8 within [-limit, limit]."""
    return _integers(weight.detach(), _column(_scale(quant), weight), quant.limit).to(torch.int8)


def dequantized_weight(weight: Tensor, quant: WeightQuant) -> Tensor:
    """The float weight that a kernel effectively computes with once ``weight`` is held as ``quant`` says."""
    if quant.integer:
        return quantize_weight(weight, quant).float() * _column(_scale(quant), weight)
    return weight.detach().half().float() if quant.bits == 16 else weight.detach()


def straight_through_weight(weight: Tensor, scale: Tensor, limit: int) -> Tensor:
    """As :func:`dequantized_weight` for integers, with the gradient of the identity inside the range."""
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -limit, limit)


def fake_quantize_activation(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """``x`` through ``uint8`` and back, with the gradient of the identity inside the range."""
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)


def activation_quant(low: float, high: float) -> ActivationQuant:
    """The ``uint8`` scale and zero point that cover [low, high] and represent 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, _SMALLEST)
    # The scale is stored as float32, so the zero point is computed with what will be read back.
    scale = float(torch.tensor(scale, dtype=torch.float32))
    return ActivationQuant(scale, min(255, max(0, round(-low / scale))))


def bias_scale(weight: Tensor, activation: ActivationQuant) -> Tensor:
    """Scale of the ``int32`` bias: input scale times weight scale, (out channels,)."""
    return weight * _step(activation)


def quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """(out channels,) ``int32``."""
    return torch.round(bias.detach().double() / scale.double()).clamp(-_BIAS_LIMIT, _BIAS_LIMIT).to(torch.int32)


def dequantized_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """The bias a kernel effectively adds."""
    return quantize_bias(bias, scale).float() * scale


def scale_that_holds_bias(scale: Tensor, bias: Tensor, activation: ActivationQuant) -> Tensor:
    """``scale`` raised where the ``int32`` bias would overflow: channels whose weights are all but zero."""
    return torch.maximum(scale, bias.detach().abs() / (_step(activation) * _BIAS_LIMIT))


def _integers(weight: Tensor, scale: Tensor, limit: int) -> Tensor:
    return torch.round(weight / scale).clamp(-limit, limit)


def _round_trip(rows: Tensor, scale: Tensor, limit: int) -> Tensor:
    column = scale.unsqueeze(1)
    return _integers(rows, column, limit) * column


def _column(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.dim() - 1))


def _scale(quant: WeightQuant) -> Tensor:
    if quant.scale is None:
        raise ValueError("the plan has no weight scales yet: calibrate it first")
    return quant.scale


def _step(activation: ActivationQuant) -> float:
    if activation.scale is None:
        raise ValueError("the plan has no activation scales yet: calibrate it first")
    return activation.scale
