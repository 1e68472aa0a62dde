"""Networks for microcontrollers."""

from __future__ import annotations

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.mobilenets import mobilenet_v1_features
from kneepoint.hardware_models.zoo.network import ZooNetwork

_MLPERF_TINY = "Banbury et al. 2021, arXiv 2106.07597; github.com/mlcommons/tiny, benchmark/training"


def resnet8(b: NetworkBuilder) -> OperatorTable:
    """Image classification: three residual blocks on CIFAR-10."""
    x = b.conv(b.input(3, 32, 32), 16, 3, activation="relu")
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        y = b.conv(b.conv(x, channels, 3, stride, activation="relu"), channels, 3)
        shortcut = x if stride == 1 else b.conv(x, channels, 1, stride, norm=False)
        x = b.add(shortcut, y, activation="relu")
    return b.table(b.softmax(_pooled_linear(b, x, 10)))


def visual_wake_words(b: NetworkBuilder) -> OperatorTable:
    """Person or none: MobileNetV1 of a quarter width, with ReLU where TensorFlow's has ReLU6."""
    x = mobilenet_v1_features(b, b.input(3, 96, 96), 0.25, activation="relu")[-1]
    return b.table(b.softmax(_pooled_linear(b, x, 2)))


def keyword_spotting(b: NetworkBuilder) -> OperatorTable:
    """Depthwise-separable convolutions over 49 frames of 10 coefficients (Zhang et al. 2017, 1711.07128)."""
    x = b.conv(b.input(1, 49, 10), 64, (10, 4), 2, activation="relu")
    for _ in range(4):
        x = b.conv(x, 64, 3, groups=64, activation="relu")
        x = b.conv(x, 64, activation="relu")
    return b.table(b.softmax(_pooled_linear(b, x, 12)))


def autoencoder(b: NetworkBuilder) -> OperatorTable:
    """Anomaly detection: linear layers around a bottleneck of 8, over 5 frames of 128 mel bands."""
    x = b.input(640)
    for features in (*[128] * 4, 8, *[128] * 4):
        x = b.linear(x, features, norm=True, activation="relu")
    return b.table(b.linear(x, 640))


def _pooled_linear(b: NetworkBuilder, x: str, classes: int) -> str:
    """As Keras writes it: a pool as large as the image, then a linear layer."""
    return b.linear(b.flatten(b.global_avg_pool(x)), classes)


NETWORKS = (
    ZooNetwork(
        "MLPerf-Tiny IC: ResNet-8 (CIFAR-10 32x32x3)", "MLPerf Tiny ResNet", resnet8, _MLPERF_TINY,
        ("MLPerf-Tiny IC", "ResNet-8"), 0, 12.5e6, 0.01,
    ),
    ZooNetwork(
        "MLPerf-Tiny VWW: MobileNetV1-0.25 96x96", "MobileNetV1", visual_wake_words, _MLPERF_TINY,
        ("MLPerf-Tiny VWW",), 0, 7.49e6, 0.01,
    ),
    ZooNetwork(
        "MLPerf-Tiny KWS: DS-CNN", "MLPerf Tiny DS-CNN", keyword_spotting, _MLPERF_TINY,
        ("MLPerf-Tiny KWS", "DS-CNN"), 0, 2.66e6, 0.01,
    ),
    ZooNetwork(
        "MLPerf-Tiny AD: FC-AutoEncoder (ToyADMOS 640-in)", "MLPerf Tiny AutoEncoder", autoencoder, _MLPERF_TINY,
        ("MLPerf-Tiny AD",), 0, 264_192, 0,
    ),
)  # fmt: skip
