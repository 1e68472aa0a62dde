"""Integer weights with a scale for every group of input features, as ONNX Runtime's MatMulNBits reads them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kneepoint.spaces.quant_plan import WeightQuant


def packed_groups(values: Tensor, quant: WeightQuant) -> Tensor:
    """Signed integers as unsigned ones around half the range, packed into bytes with the first in the lowest bits.

    Args:
        values: (out features, in features) int8.
        quant: With its container's bits and its group size; the last group is filled up with zeros.

    Returns:
        (out features, groups, group size * bits / 8) uint8.
    """
    bits = quant.stored_bits
    features = values.shape[1]
    filled = F.pad(values, (0, -features % quant.group_size)).to(torch.int32) + 2 ** (bits - 1)
    in_a_byte = 8 // bits
    parts = filled.view(len(values), -1, quant.group_size // in_a_byte, in_a_byte)
    shifts = torch.arange(in_a_byte, dtype=torch.int32) * bits
    packed: Tensor = (parts << shifts).sum(dim=-1).to(torch.uint8)
    return packed
