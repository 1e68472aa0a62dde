"""Networks of the Transformers library, built from configurations: few stages, narrow, random weights, no download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.conformance_networks import Architecture, image


def _build(name: str, task: str = "ImageClassification", **options: Any) -> Callable[[], nn.Module]:
    """A maker of ``NAMEForTASK`` with the configuration ``NAMEConfig``; Transformers is imported when it is called."""

    def build() -> nn.Module:
        import transformers  # takes seconds

        configuration = getattr(transformers, f"{name}Config")(num_labels=10, **options)
        module: nn.Module = getattr(transformers, f"{name}For{task}")(configuration)
        return module

    return build


def _sentence() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, 50, (1, 8)), "attention_mask": torch.ones(1, 8, dtype=torch.long)}


_ATTENTION: Mapping[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_CONVOLUTIONAL: Mapping[str, Architecture] = {
    name: Architecture("Transformers, convolutional", build, image(3, 32))
    for name, build in (
        ("ResNet", _build("ResNet", embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic")),
        (
            "ResNet, bottleneck",
            _build("ResNet", embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2], layer_type="bottleneck"),
        ),
        (
            "RegNet",
            _build("RegNet", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8, layer_type="y"),
        ),
        ("MobileNetV1", _build("MobileNetV1", depth_multiplier=0.25, image_size=32)),
        ("MobileNetV2", _build("MobileNetV2", depth_multiplier=0.35, image_size=32)),
        ("ConvNeXt", _build("ConvNext", hidden_sizes=[16, 32], depths=[2, 2], num_stages=2, image_size=32)),
        (
            "EfficientNet",
            _build(
                "EfficientNet",
                image_size=32,
                width_coefficient=0.5,
                depth_coefficient=0.5,
                hidden_dim=640,
                in_channels=[32, 16, 24],
                out_channels=[16, 24, 40],
                kernel_sizes=[3, 3, 5],
                strides=[1, 2, 2],
                num_block_repeats=[1, 2, 2],
                expand_ratios=[1, 6, 6],
                depthwise_padding=[],
            ),
        ),
    )
}
_ATTENTIVE: Mapping[str, Architecture] = {
    name: Architecture("Transformers, with attention", build, example)
    for name, build, example in (
        ("ViT", _build("ViT", image_size=16, patch_size=4, **_ATTENTION), image(3, 16)),
        ("BERT", _build("Bert", "SequenceClassification", vocab_size=50, **_ATTENTION), _sentence),
    )
}
TRANSFORMERS: Mapping[str, Architecture] = {**_CONVOLUTIONAL, **_ATTENTIVE}
