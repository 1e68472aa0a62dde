"""Networks that segment volumes."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "Cicek et al. 2016, arXiv 1606.06650; Isensee et al. 2018, arXiv 1809.10486"
_WIDTHS = (32, 64, 128, 256, 320, 320)


def _conv(b: NetworkBuilder, x: str, channels: int, stride: int = 1) -> str:
    y = b.conv(x, channels, 3, stride, padding=1, norm=False, bias=False)
    return b.activation(b.instance_norm(y), "leakyrelu")


def unet_3d(b: NetworkBuilder, size: tuple[int, int, int], channels: int, classes: int) -> OperatorTable:
    """Six resolutions of two convolutions each, down and up again, with an instance norm behind every convolution.

    Args:
        b: The builder.
        size: Of the volume; 32 divides each.
        channels: Of the input.
        classes: Maps of the output.
    """
    x = b.input(channels, *size)
    outputs = []
    for index, width in enumerate(_WIDTHS):
        x = _conv(b, _conv(b, x, width, 2 if index else 1), width)
        outputs.append(x)
    for width, skipped in zip(_WIDTHS[-2::-1], outputs[-2::-1], strict=True):
        x = b.concat((b.conv_transpose(x, width, 2, 2), skipped))
        x = _conv(b, _conv(b, x, width), width)
    return b.table(b.conv(x, classes, norm=False))


NETWORKS = (
    ZooNetwork(
        "3D-UNet KiTS19 128x128x128", "3D-UNet", partial(unet_3d, size=(128, 128, 128), channels=1, classes=3),
        f"{_PAPER}; MLPerf's image_segmentation/pytorch", ("3D-UNet (MLPerf 99)", "3D-UNet (MLPerf 99.9)"),
        note="one window of 128x128x128; a published row since MLPerf 2.0 is of a whole scan, of another number of "
        "overlapping windows each, and one of MLPerf 0.7 to 1.1 of one volume of BraTS, which is another network",
        comparable=False,
    ),
)  # fmt: skip
