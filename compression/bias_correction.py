"""What rounding a weight adds to a layer's outputs on average, and the bias that takes it back."""

from __future__ import annotations

import torch
from torch import Tensor

from kneepoint.compression.statistics import InputStatistics


def bias_correction(weight: Tensor, rounded: Tensor, statistics: InputStatistics) -> Tensor:
    """The increment of the bias that restores the mean output of every channel.

    It is E[W x] - E[W' x] = (W - W') E[x]: bias correction as in Nagel et al., "Data-Free Quantization Through Weight
    Equalization and Bias Correction" (ICCV 2019), section 4.2, with a measured instead of an analytical mean.

    Args:
        weight: (out channels, ...), as trained.
        rounded: Of the same shape, as the kernel computes with it.
        statistics: Of what the layer reads.

    Returns:
        (out channels,) in the weight's type.
    """
    groups = len(statistics.mean)
    error = (weight - rounded).flatten(1).unflatten(0, (groups, -1))  # (groups, channels a group, elements)
    return torch.bmm(error, statistics.mean.to(error).unsqueeze(2)).flatten()
