"""Layers that are written down look like those that are traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kneepoint.hardware_models import FUSION_RULES, OperatorTable, fuse
from kneepoint.hardware_models.zoo.blocks import inverted_residual, linear_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.light_networks import shuffled
from kneepoint.hardware_models.zoo.resnets import resnet
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU())
        self.excite = nn.Sequential(nn.Conv2d(width, channels, 1), nn.Hardsigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale: torch.Tensor = self.excite(self.squeeze(self.pool(x)))
        return x * scale


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *normed(nn.Conv2d(8, 24, 1, bias=False), nn.ReLU()),
            *normed(nn.Conv2d(24, 24, 5, padding=2, groups=24, bias=False), nn.ReLU()),
            SqueezeExcitation(24, 8),
            *normed(nn.Conv2d(24, 8, 1, bias=False)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.layers(x)
        return result


def normed(convolution: nn.Conv2d, *activation: nn.Module) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), *activation


def traced_cnn() -> nn.Module:
    return nn.Sequential(
        *normed(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.ReLU()),
        nn.MaxPool2d(3, 2, 1),
        InvertedResidual(),
        nn.Conv2d(8, 16, (1, 3), padding=(0, 1), groups=2),
        nn.LeakyReLU(),
        nn.AvgPool2d(2, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def written_cnn(b: NetworkBuilder) -> OperatorTable:
    x = b.conv(b.input(3, 33, 33), 8, 3, 2, padding=1, activation="relu")
    x = b.pool(x, "max", 3, 2, 1)
    x = inverted_residual(b, x, 8, 24, 5, 1, activation="relu", squeezed=8, gate="hardsigmoid")
    x = b.conv(x, 16, (1, 3), padding=(0, 1), groups=2, activation="leakyrelu", norm=False)
    return b.table(linear_classifier(b, b.pool(x, "avg", 2, 2), 5))


def traced_resnet() -> nn.Module:
    labels: dict[str, Any] = {"num_labels": 1000}
    sizes: dict[str, Any] = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    return hf.ResNetForImageClassification(hf.ResNetConfig(layer_type="basic", **sizes, **labels))


def written_resnet(b: NetworkBuilder) -> OperatorTable:
    return resnet(b, 18, 64)


RULES = tuple(rule for rule in FUSION_RULES if rule != "blocked")
MEANS = ("global_avg_pool", "reduce")
"""What the exporter makes of a global pool is a reduction, which ends a chain of blocked kernels."""


def kernels(table: OperatorTable) -> list[Any]:
    return [kernel.row for kernel in fuse(table, RULES) if kernel.kind not in MEANS]


@pytest.mark.parametrize(
    ("module", "written", "size"), [(traced_cnn, written_cnn, 33), (traced_resnet, written_resnet, 64)]
)
def test_what_is_written_costs_what_is_traced(module: Any, written: Any, size: int) -> None:
    traced = lower(Network(module().eval(), (torch.rand(1, 3, size, size),)), Policy.build())
    table = written(NetworkBuilder())
    assert (table.parameters, table.macs) == (traced.parameters, traced.macs)
    assert kernels(table) == kernels(traced)


def test_norms_stay_where_a_framework_keeps_them() -> None:
    absorbed, kept = written_cnn(NetworkBuilder()), written_cnn(NetworkBuilder(norms=True))
    norms = [operator.name for operator in kept.operators if operator.kind == "batch_norm"]
    assert len(norms) == 4
    assert len(kept.operators) == len(absorbed.operators) + len(norms)
    assert kept.macs == absorbed.macs
    assert kept.parameters == absorbed.parameters + sum(kept.tensors[name].shape[1] for name in norms)


@given(st.integers(1, 64), st.integers(1, 7), st.integers(1, 4))
def test_the_same_padding_gives_the_size_over_the_stride_rounded_up(size: int, kernel: int, stride: int) -> None:
    b = NetworkBuilder()
    x = b.input(4, size, size + 1)
    assert b.shape(b.conv(x, 2, kernel, stride)) == (1, 2, -(-size // stride), -(-(size + 1) // stride))
    assert b.shape(b.pool(x, "max", kernel, stride, "same"))[2] == -(-size // stride)


@given(st.integers(7, 64), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2))
@settings(deadline=None)
def test_pools_have_the_sizes_of_a_framework(size: int, kernel: int, stride: int, padding: int) -> None:
    padding = min(padding, kernel // 2)
    b = NetworkBuilder()
    x = b.input(1, size, size)
    image = torch.zeros(1, 1, size, size)
    for rounds_up in (False, True):
        if rounds_up and (stride > kernel or padding):
            continue  # a framework drops windows that begin behind the image
        expected = nn.MaxPool2d(kernel, stride, padding, ceil_mode=rounds_up)(image).shape
        assert b.shape(b.pool(x, "max", kernel, stride, padding, rounds_up=rounds_up)) == tuple(expected)


def test_a_shuffle_takes_channels_in_turn() -> None:
    b = NetworkBuilder()
    x = b.input(6, 2, 2)
    table = b.table(shuffled(b, x))
    assert [operator.kind for operator in table.operators] == ["view", "transpose", "view"]
    assert b.shape(table.outputs[0]) == b.shape(x)


def test_a_batch_multiplies_work_and_nothing_else() -> None:
    one, eight = written_cnn(NetworkBuilder()), written_cnn(NetworkBuilder(8))
    assert (eight.macs, eight.parameters) == (8 * one.macs, one.parameters)
    assert all(tensor.shape[0] == 8 for tensor in eight.tensors.values())
