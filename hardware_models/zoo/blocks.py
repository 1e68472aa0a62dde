"""What networks of several families have in common."""

from __future__ import annotations

from kneepoint.hardware_models.zoo.builder import NetworkBuilder, Padding


def divisible(channels: float, divisor: int = 8) -> int:
    """A scaled number of channels as a multiple of ``divisor``, no more than a tenth below it.

    From the reference code of MobileNetV2; all networks with a width multiplier since round so.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def squeeze_excitation(b: NetworkBuilder, x: str, width: int, activation: str = "relu", gate: str = "sigmoid") -> str:
    """Scales every channel by what a bottleneck of ``width`` makes of all means (Hu et al. 2017, 1709.01507)."""
    scale = b.conv(b.global_avg_pool(x), width, activation=activation, norm=False)
    return b.mul(x, b.conv(scale, b.channels(x), activation=gate, norm=False))


def inverted_residual(
    b: NetworkBuilder,
    x: str,
    channels: int,
    expanded: int,
    kernel: int,
    stride: int,
    *,
    activation: str = "clip",
    squeezed: int = 0,
    gate: str = "sigmoid",
    squeeze_activation: str = "",
    padding: Padding = "same",
) -> str:
    """Expands, filters every channel, projects, and adds its input if it can (Sandler et al. 2018, 1801.04381).

    Args:
        b: The builder.
        x: (batch, channels, height, width).
        channels: Of the output.
        expanded: Channels of the depthwise convolution; as many as ``x`` has leave the expansion out.
        kernel: Of the depthwise convolution.
        stride: Of the depthwise convolution.
        activation: Behind the first two convolutions.
        squeezed: Width of the squeeze-and-excitation between the last two convolutions; 0 for none.
        gate: Activation of its gate.
        squeeze_activation: Its inner activation; ``activation`` where empty.
        padding: Of the depthwise convolution.
    """
    y = b.conv(x, expanded, activation=activation) if expanded != b.channels(x) else x
    y = b.conv(y, expanded, kernel, stride, groups=expanded, activation=activation, padding=padding)
    if squeezed:
        y = squeeze_excitation(b, y, squeezed, squeeze_activation or activation, gate)
    y = b.conv(y, channels)
    return b.add(x, y) if stride == 1 and channels == b.channels(x) else y


def linear_classifier(b: NetworkBuilder, x: str, classes: int = 1000) -> str:
    """The mean of every channel, then one linear layer."""
    return b.linear(b.flatten(b.global_avg_pool(x)), classes)


def conv_classifier(b: NetworkBuilder, x: str, classes: int = 1001) -> str:
    """The mean of every channel, a pointwise convolution and softmax, as TensorFlow's slim networks end."""
    return b.softmax(b.flatten(b.conv(b.global_avg_pool(x), classes, norm=False)))
