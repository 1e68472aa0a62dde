"""ConvNeXt, as it is traced."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import nn

from kneepoint.hardware_models import FUSION_RULES, OperatorTable, fuse
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.convnexts import convnext
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy

SIZES: dict[str, Any] = {"depths": [1, 2], "hidden_sizes": [8, 16], "num_stages": 2, "image_size": 32, "num_labels": 10}


def kernels(table: OperatorTable) -> list[Any]:
    """But for the mean of each channel, which may be a reduction or a pool and a view."""
    means = ("view", "reduce", "global_avg_pool")
    return [kernel.row for kernel in fuse(table, FUSION_RULES) if kernel.kind not in means]


def test_what_is_written_costs_what_is_traced() -> None:
    module: nn.Module = hf.ConvNextForImageClassification(hf.ConvNextConfig(**SIZES))
    traced = lower(Network(module.eval(), (torch.rand(1, 3, 32, 32),)), Policy.build())
    written = convnext(NetworkBuilder(), 32, depths=(1, 2), widths=(8, 16), classes=10)
    assert (written.parameters, written.macs) == (traced.parameters, traced.macs)
    assert kernels(written) == kernels(traced)
