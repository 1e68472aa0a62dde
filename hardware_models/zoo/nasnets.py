"""NASNet-A: cells that an architecture search found, each of which reads the outputs of the last two."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.blocks import linear_classifier
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "Zoph et al. 2017, arXiv 1707.07012; as in TensorFlow's research/slim"


def separable(b: NetworkBuilder, x: str, channels: int, kernel: int, stride: int = 1) -> str:
    """Twice: ReLU, a depthwise convolution, which has the stride the first time, and a pointwise one."""
    for step in (stride, 1):
        x = b.activation(x, "relu")
        x = b.conv(x, b.channels(x), kernel, step, groups=b.channels(x), norm=False, bias=False)
        x = b.conv(x, channels)
    return x


def _squeezed(b: NetworkBuilder, x: str, channels: int) -> str:
    return b.conv(b.activation(x, "relu"), channels)


def _fitted(b: NetworkBuilder, x: str, like: str, channels: int) -> str:
    """``x`` with so many channels, and of the size of ``like``: by two pointwise convolutions of every other pixel."""
    if b.shape(x)[2:] == b.shape(like)[2:]:
        return _squeezed(b, x, channels)
    x = b.activation(x, "relu")
    return b.concat([b.conv(b.pool(x, "avg", 1, 2), part) for part in (channels // 2, channels - channels // 2)])


def normal_cell(b: NetworkBuilder, x: str, previous: str, channels: int) -> str:
    """Figure 4 of the paper, left: six times ``channels``."""
    left, right = _fitted(b, previous, x, channels), _squeezed(b, x, channels)
    mean = partial(b.pool, kind="avg", kernel=3, stride=1, padding="same")
    parts = (
        left,
        b.add(separable(b, right, channels, 5), separable(b, left, channels, 3)),
        b.add(separable(b, left, channels, 5), separable(b, left, channels, 3)),
        b.add(mean(right), left),
        b.add(mean(left), mean(left)),
        b.add(separable(b, right, channels, 3), right),
    )
    return b.concat(parts)


def reduction_cell(b: NetworkBuilder, right: str, left: str, channels: int) -> str:
    """Figure 4 of the paper, right: four times ``channels``, at half the size of ``right`` and ``left``."""
    mean = partial(b.pool, kind="avg", kernel=3, padding="same")
    largest = partial(b.pool, kind="max", kernel=3, stride=2, padding="same")
    first = b.add(separable(b, right, channels, 5, 2), separable(b, left, channels, 7, 2))
    second = b.add(largest(right), separable(b, left, channels, 7, 2))
    third = b.add(mean(right, stride=2), separable(b, left, channels, 5, 2))
    fourth = b.add(mean(first, stride=1), second)
    fifth = b.add(separable(b, first, channels, 3), largest(right))
    return b.concat((second, third, fourth, fifth))


def nasnet(
    b: NetworkBuilder, resolution: int, stem: int, penultimate: int, repeats: int, *, skips: bool
) -> OperatorTable:
    """NASNet-A for 1,000 classes.

    Args:
        b: The builder.
        resolution: Of the image.
        stem: Channels of the first convolution.
        penultimate: Channels in front of the classifier, 24 times those of the first cells.
        repeats: Normal cells between two reduction cells.
        skips: Whether the cell behind a reduction reads what the reduction's second input was, not its first.
    """
    width = penultimate // 24
    image = b.conv(b.input(3, resolution, resolution), stem, 3, 2, padding=0)
    previous = reduction_cell(b, _squeezed(b, image, width // 4), image, width // 4)
    right = _squeezed(b, previous, width // 2)
    x = reduction_cell(b, right, _fitted(b, image, previous, width // 2), width // 2)
    for stage in range(3):
        channels = width * 2**stage
        if stage:
            right, left = _squeezed(b, x, channels), _fitted(b, previous, x, channels)
            previous, x = previous if skips else x, reduction_cell(b, right, left, channels)
        for _ in range(repeats):
            previous, x = x, normal_cell(b, x, previous, channels)
    return b.table(linear_classifier(b, b.activation(x, "relu")))


NETWORKS = (
    ZooNetwork(
        "NASNet mobile 224", "NASNet",
        partial(nasnet, resolution=224, stem=32, penultimate=1056, repeats=4, skips=False), _PAPER, (), 5.3e6, 564e6,
    ),
    ZooNetwork(
        "NASNet large 331", "NASNet",
        partial(nasnet, resolution=331, stem=96, penultimate=4032, repeats=6, skips=True), _PAPER, (), 88.9e6, 23.8e9,
    ),
)  # fmt: skip
