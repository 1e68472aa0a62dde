"""The arithmetic of quantization, in the semantics of ONNX's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kneepoint.spaces.quant_plan import ActivationQuant, WeightQuant

SMALLEST_SCALE = 1e-8  # a channel of zeros still needs a scale
BLOCK_LIMIT = 127
"""The largest integer of activations that have a scale for every block."""
_BIAS_LIMIT = 2**30

# --- weights -------------------------------------------------------------------------------------------------------


def weight_rows(weight: Tensor, quant: WeightQuant) -> Tensor:
    """``weight`` as (channels, elements that share the channel's scale, or its groups' scales)."""
    return weight.movedim(quant.axis, 0).flatten(1)


def expanded_scale(weight: Tensor, quant: WeightQuant) -> Tensor:
    """The calibrated scale in a shape that broadcasts against ``weight``."""
    scale = _scale(quant)
    if quant.group_size:
        return scale.repeat_interleave(quant.group_size, dim=1)[:, : weight.shape[1]]
    return scale.view([-1 if axis == quant.axis else 1 for axis in range(weight.dim())])


def integers(weight: Tensor, scale: Tensor, quant: WeightQuant) -> Tensor:
    """The integers (as floats) of ``weight`` under a ``scale`` that broadcasts: rounded, or the sign for one bit."""
    if quant.bits == 1:
        return torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
    return torch.round(weight / scale).clamp(quant.lowest, quant.limit)


def quantize_weight(weight: Tensor, quant: WeightQuant) -> Tensor:
    """The integers an artifact stores: int8 within [lowest, limit], in the shape of ``weight``."""
    return integers(weight.detach(), expanded_scale(weight, quant), quant).to(torch.int8)


def dequantized_weight(weight: Tensor, quant: WeightQuant) -> Tensor:
    """The float weight that a kernel effectively computes with once ``weight`` is held as ``quant`` says."""
    if quant.integer:
        scale = expanded_scale(weight, quant)
        return integers(weight.detach(), scale, quant) * scale
    return weight.detach().half().float() if quant.bits == 16 else weight.detach()


def straight_through_weight(weight: Tensor, scale: Tensor, bits: int, group_size: int = 0) -> Tensor:
    """As :func:`dequantized_weight` for integers, with the gradient of the identity inside the range.

    Bengio, Leonard & Courville (2013), section 3.2. One bit has no range, and lets every gradient through.

    Args:
        weight: Float.
        scale: Broadcasts against ``weight``.
        bits: Of the weight.
        group_size: Input features that share one scale, which may then be negative; 0 for all of a channel.
    """
    quant = WeightQuant(bits, group_size=group_size)
    ends = (quant.lowest * scale, quant.limit * scale)
    inside = weight if bits == 1 else torch.clamp(weight, torch.minimum(*ends), torch.maximum(*ends))
    with torch.no_grad():
        rounded = integers(weight, scale, quant) * scale
    return inside + (rounded - inside).detach()


# --- activations ---------------------------------------------------------------------------------------------------


def fake_quantize_activation(x: Tensor, scale: float, zero_point: int, limit: int) -> Tensor:
    """``x`` through unsigned integers and back, with the gradient of the identity inside the range.

    Written with plain operators: torch's own fake quantization takes more than ten times as long on a CPU.
    """
    if not x.requires_grad:
        # One pass each over a tensor that is in the cache; the zero point is in the bounds, not in the values.
        return x.div(scale).round_().clamp_(-zero_point, limit - zero_point).mul_(scale)
    inside = x.clamp(-zero_point * scale, (limit - zero_point) * scale)
    with torch.no_grad():
        rounded = x.div(scale).round_().clamp_(-zero_point, limit - zero_point).mul_(scale)
    return inside + (rounded - inside).detach()


def fake_quantize_dynamic(x: Tensor) -> Tensor:
    """``x`` through ``uint8`` and back, with the range it has now: ONNX's DynamicQuantizeLinear.

    The gradient is that of the identity, because no value lies outside the range.
    """
    with torch.no_grad():
        low, high = torch.aminmax(x)
        low, high = low.clamp_max(0.0), high.clamp_min(0.0)
        scale = (high - low) / 255
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero_point = (-low / scale).round().clamp(0, 255)
        rounded = (x.div(scale).round_().add_(zero_point).clamp_(0, 255) - zero_point).mul_(scale)
    return x + (rounded - x).detach() if x.requires_grad else rounded


def fake_quantize_blocks(x: Tensor, size: int) -> Tensor:
    """``x`` through signed bytes and back, with a scale for every ``size`` features of every row.

    That is what ONNX Runtime's MatMulNBits does to its input at accuracy level 4: round(x / scale), where scale is the
    largest magnitude over 127. The gradient is that of the identity, because no value lies outside the range.

    Args:
        x: (..., features).
        size: Features that share a scale; the last of a row may be fewer.
    """
    with torch.no_grad():
        features = x.shape[-1]
        blocks = functional.pad(x, (0, -features % size)).unflatten(-1, (-1, size))
        scale = blocks.abs().amax(-1, keepdim=True) / BLOCK_LIMIT
        steps = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
        rounded: Tensor = blocks.mul(steps).round_().mul_(scale).flatten(-2)[..., :features]
    return x + (rounded - x).detach() if x.requires_grad else rounded


def activation_quant(low: float, high: float, bits: int = 8) -> ActivationQuant:
    """The scale and zero point that cover [low, high] and represent 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    limit = ActivationQuant(bits=bits).limit
    scale = max((high - low) / limit, SMALLEST_SCALE)
    # The scale is stored as float32, so the zero point is computed with what will be read back.
    scale = float(torch.tensor(scale, dtype=torch.float32))
    return ActivationQuant(scale, min(limit, max(0, round(-low / scale))), bits)


# --- biases --------------------------------------------------------------------------------------------------------


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


def _scale(quant: WeightQuant) -> Tensor:
    if quant.scale is None:
        raise ValueError("the plan has no weight scales yet: calibrate it first")
    return quant.scale


def _step(activation: ActivationQuant) -> float:
    if activation.scale is None:
        raise ValueError("the plan has no activation scales yet: calibrate it first")
    return activation.scale
