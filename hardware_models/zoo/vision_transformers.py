"""Vision transformers."""

from __future__ import annotations

from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork
from kneepoint.hardware_models.zoo.transformer_blocks import norm_first_block

_PAPER = "Dosovitskiy et al. 2020, arXiv 2010.11929"


def vision_transformer(
    b: NetworkBuilder,
    *,
    resolution: int,
    patch: int,
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    hidden: int = 3072,
    classes: int = 1000,
) -> OperatorTable:
    """Patches and a class token through a transformer, and a linear layer over what became of the class token."""
    x = b.conv(b.input(3, resolution, resolution), width, patch, patch, padding=0, norm=False)
    tokens = (resolution // patch) ** 2
    x = b.concat((b.transpose(b.view(x, width, tokens), 0, 2, 1),), constants=1)
    x = b.add_constant(x, 1, tokens + 1, width)
    for _ in range(layers):
        x = norm_first_block(b, x, heads, hidden)
    x = b.copy(b.layer_norm(x), (width,), "Gather")
    return b.table(b.linear(x, classes))


NETWORKS = (
    ZooNetwork(
        "ViT-B/16 224", "ViT", partial(vision_transformer, resolution=224, patch=16), _PAPER,
        ("VIT", "ViT-B"), 86_567_656, 17.56e9, 0.005,
    ),
    ZooNetwork(
        "ViT-B/32 384", "ViT", partial(vision_transformer, resolution=384, patch=32),
        f"{_PAPER}; ncnn's benchmark/vision_transformer.param: patches of 32 pixels, 145 tokens",
        ("ViT-B (ncnn vision_transformer) 384",), 88.3e6, 13.06e9, 0.01,
    ),
)  # fmt: skip
