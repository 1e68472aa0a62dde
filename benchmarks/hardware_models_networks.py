"""Whole networks whose latency hardware_models.py predicts and measures: seven families, three or four sizes each.

None of them was ever seen by a calibration, which measures small random networks of its own. Weights are random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.conformance_networks import image
from benchmarks.quantization_networks import DepthwiseNet
from kneepoint.tasks.digits import CANVAS
from kneepoint.tasks.residual_network import ResidualNet

CONVOLUTIONAL = ("w32", "w8a8", "w32@0.5", "w8a8@0.5", "w32@0.75", "mixed")
ATTENTIVE = ("w32", "w8a8", "w8a8-dynamic", "w4-g32", "w32@0.5", "w8a8@0.75", "w8a8-dynamic@0.5", "mixed")
"""How a network is compressed: the format of its layers and the share of channels that every group keeps; both are
random for every layer and group of a ``mixed`` one, odd widths included."""
Setting = tuple[int, int]
"""Threads and batch."""


@dataclass(frozen=True)
class Subject:
    """One network.

    Attributes:
        family: What it is left out with, when anything is fitted on whole networks.
        build: A new module with weights drawn from torch's global generator.
        example: One input of one sample.
        variants: How it is compressed.
        settings: Threads and batch that every variant is measured at.
    """

    family: str
    build: Callable[[], nn.Module]
    example: Callable[[], Tensor]
    variants: tuple[str, ...]
    settings: tuple[Setting, ...]


class SqueezeExcitation(nn.Module):
    """A quarter of the channels, rounded to a multiple of eight, as MobileNetV3 squeezes to."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = rounded(channels / 4)
        self.down, self.up = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """One row of the tables of Howard et al., "Searching for MobileNetV3", ICCV 2019."""

    def __init__(self, inputs: int, row: tuple[int, int, int, bool, bool, int], width: float) -> None:
        super().__init__()
        kernel, expanded, outputs, excites, hardswish, stride = row
        wide, narrow = rounded(width * expanded), rounded(width * outputs)
        activation = nn.Hardswish if hardswish else nn.ReLU
        expansion = [*_normalized(nn.Conv2d(inputs, wide, 1, bias=False)), activation()] if wide != inputs else []
        depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        excitation = [SqueezeExcitation(wide)] if excites else []
        projection = _normalized(nn.Conv2d(wide, narrow, 1, bias=False))
        self.body = nn.Sequential(*expansion, *_normalized(depthwise), activation(), *excitation, *projection)
        self.residual = stride == 1 and inputs == narrow

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class MobileNetV3(nn.Module):
    """The network of a table: kernel, expanded and output channels, squeeze-and-excitation, hardswish, stride."""

    def __init__(self, rows: tuple[tuple[int, int, int, bool, bool, int], ...], last: int, width: float) -> None:
        super().__init__()
        channels = rounded(16 * width)
        self.stem = nn.Sequential(*_normalized(nn.Conv2d(3, channels, 3, 2, 1, bias=False)), nn.Hardswish())
        blocks = []
        for row in rows:
            blocks.append(InvertedResidual(channels, row, width))
            channels = rounded(width * row[2])
        self.blocks = nn.Sequential(*blocks)
        wide = rounded(width * rows[-1][1])
        self.wide = nn.Sequential(*_normalized(nn.Conv2d(channels, wide, 1, bias=False)), nn.Hardswish())
        self.head = nn.Sequential(nn.Linear(wide, last), nn.Hardswish(), nn.Linear(last, 1000))

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (N, 3, H, W) to logits of shape (N, 1000)."""
        logits: Tensor = self.head(self.wide(self.blocks(self.stem(images))).mean((2, 3)))
        return logits


class DepthwiseDigits(nn.Module):
    """Two depthwise blocks with squeeze-and-excitation, small enough to be all overhead."""

    def __init__(self, width: int) -> None:
        super().__init__()
        stem = nn.Conv2d(1, width, 3, 2, 1, bias=False)
        rows = ((3, 4 * width, width, True, True, 1), (5, 4 * width, 2 * width, True, True, 2))
        first, second = InvertedResidual(width, rows[0], 1), InvertedResidual(width, rows[1], 1)
        self.body = nn.Sequential(*_normalized(stem), nn.Hardswish(), first, second)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (N, 1, H, W) to logits of shape (N, 10)."""
        logits: Tensor = self.head(self.body(images).mean((2, 3)))
        return logits


class Tokens(nn.Module):
    """A Transformers encoder with token ids in, and a linear head on the first token."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 4)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, tokens) to logits of shape (N, 4)."""
        logits: Tensor = self.head(self.encoder(input_ids=ids, return_dict=False)[0][:, 0])
        return logits


def rounded(channels: float, multiple: int = 8) -> int:
    """The nearest multiple that is at least one, and at least 90 % of ``channels``, as MobileNets round."""
    nearest = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return nearest if nearest >= 0.9 * channels else nearest + multiple


def _normalized(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels)


_LARGE = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)  # fmt: skip
_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)  # fmt: skip


def _large(width: float) -> Callable[[], nn.Module]:
    return lambda: MobileNetV3(_LARGE, 1280, width)


def _small(width: float) -> Callable[[], nn.Module]:
    return lambda: MobileNetV3(_SMALL, 1024, width)


def _classifier(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A maker of an image classifier of the Transformers library."""

    def build() -> nn.Module:
        import transformers  # takes seconds

        configuration = getattr(transformers, f"{name}Config")(num_labels=1000, **options)
        module: nn.Module = getattr(transformers, f"{name}ForImageClassification")(configuration)
        return module

    return build


def _resnet(layer: str, stem: int, widths: list[int], depths: list[int]) -> Callable[[], nn.Module]:
    return _classifier("ResNet", embedding_size=stem, hidden_sizes=widths, depths=depths, layer_type=layer)


def _efficientnet(width: float, depth: float, size: int) -> Callable[[], nn.Module]:
    # Transformers wants the width of the last convolution, which the other widths follow from.
    last = rounded(1280 * width)
    return _classifier(
        "EfficientNet", width_coefficient=width, depth_coefficient=depth, hidden_dim=last, image_size=size
    )


def _convnext(width: int, depths: list[int], size: int) -> Callable[[], nn.Module]:
    widths = [width * 2**stage for stage in range(len(depths))]
    return _classifier("ConvNext", hidden_sizes=widths, depths=depths, num_stages=len(depths), image_size=size)


def _vit(width: int, layers: int, size: int, patch: int) -> Callable[[], nn.Module]:
    return _classifier("ViT", image_size=size, patch_size=patch, **_attention(width, layers))


def _bert(kind: str, width: int, layers: int, **options: Any) -> Callable[[], nn.Module]:
    """An encoder with the vocabulary of bert-base-uncased."""

    def build() -> nn.Module:
        import transformers  # takes seconds

        configuration = getattr(transformers, f"{kind}Config")(**_attention(width, layers), **options)
        return Tokens(getattr(transformers, f"{kind}Model")(configuration), width)

    return build


def _attention(width: int, layers: int) -> dict[str, int]:
    heads = max(1, width // 64)
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


def _text(length: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, VOCABULARY, (1, length))


VOCABULARY = 1000
"""Token ids of the inputs are below it."""
_ONE, _TWO, _BATCH, _TWO_BATCH = (1, 1), (2, 1), (1, 8), (2, 8)
_STUDENT = 4, 1  # channels of the first stage, a quarter of the teacher's; blocks a stage


def _subjects() -> Mapping[str, Subject]:
    conv, attentive = CONVOLUTIONAL, ATTENTIVE
    resnet, mobile, efficient = "ResNet", "MobileNetV3", "EfficientNet"
    bottleneck = _resnet("bottleneck", 64, [128, 256, 512, 1024], [2, 3, 3, 2])
    return {
        "resnet18-96": Subject(
            resnet, _resnet("basic", 64, [64, 128, 256, 512], [2] * 4), image(3, 96), conv, (_ONE, _TWO)
        ),
        "resnet26-half-64": Subject(
            resnet, _resnet("basic", 32, [32, 64, 128, 256], [2, 3, 4, 3]), image(3, 64), conv, (_TWO, _BATCH)
        ),
        "resnet-bottleneck-128": Subject(resnet, bottleneck, image(3, 128), conv, (_ONE,)),
        "resnet-bottleneck-64": Subject(resnet, bottleneck, image(3, 64), conv, (_TWO_BATCH,)),
        "mobilenetv3-small-128": Subject(mobile, _small(1.0), image(3, 128), conv, (_ONE, _TWO_BATCH)),
        "mobilenetv3-large-half-160": Subject(mobile, _large(0.5), image(3, 160), conv, (_ONE, _BATCH)),
        "mobilenetv3-large-192": Subject(mobile, _large(1.0), image(3, 192), conv, (_TWO,)),
        "efficientnet-b0-96": Subject(efficient, _efficientnet(1.0, 1.0, 96), image(3, 96), conv, (_ONE, _TWO_BATCH)),
        "efficientnet-half-128": Subject(efficient, _efficientnet(0.5, 0.6, 128), image(3, 128), conv, (_TWO, _BATCH)),
        "efficientnet-b0-160": Subject(efficient, _efficientnet(1.0, 1.0, 160), image(3, 160), conv, (_ONE,)),
        "convnext-48-96": Subject(
            "ConvNeXt", _convnext(48, [2, 2, 4, 2], 96), image(3, 96), attentive, (_ONE, _TWO_BATCH)
        ),
        "convnext-32-64": Subject("ConvNeXt", _convnext(32, [2, 3, 2], 64), image(3, 64), attentive, (_TWO, _BATCH)),
        "convnext-64-128": Subject("ConvNeXt", _convnext(64, [1, 1, 3, 1], 128), image(3, 128), attentive, (_ONE,)),
        "vit-192-96": Subject("ViT", _vit(192, 4, 96, 16), image(3, 96), attentive, (_ONE, _TWO_BATCH)),
        "vit-128-64": Subject("ViT", _vit(128, 6, 64, 8), image(3, 64), attentive, (_TWO, _BATCH)),
        "vit-256-160": Subject("ViT", _vit(256, 3, 160, 16), image(3, 160), attentive, (_ONE,)),
        "bert-tiny-128": Subject("BERT", _bert("Bert", 128, 2), _text(128), attentive, (_ONE, _TWO_BATCH)),
        "bert-mini-64": Subject("BERT", _bert("Bert", 256, 4), _text(64), attentive, (_TWO, _BATCH)),
        "roberta-256-128": Subject("BERT", _bert("Roberta", 256, 3), _text(128), attentive, (_ONE,)),
        "student-quarter": Subject(
            "tiny", lambda: ResidualNet(*_STUDENT), image(1, CANVAS), conv, (_ONE, _TWO, _BATCH)
        ),
        "depthwise-digits": Subject("tiny", DepthwiseNet, image(1, CANVAS), conv, (_ONE, _TWO_BATCH)),
        "depthwise-tiny": Subject("tiny", lambda: DepthwiseDigits(8), image(1, 16), conv, (_ONE, _BATCH)),
    }


SUBJECTS = _subjects()
