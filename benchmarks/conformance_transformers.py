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
        module: nn.Module = getattr(transformers, f"{name}{task if task == 'LMHeadModel' else 'For' + task}")(
            configuration
        )
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
_VISION: Mapping[str, Architecture] = {
    name: Architecture("Transformers, with attention", build, image(3, size))
    for name, size, build in (
        ("ViT", 16, _build("ViT", image_size=16, patch_size=4, **_ATTENTION)),
        ("DeiT", 16, _build("DeiT", image_size=16, patch_size=4, **_ATTENTION)),
        (
            "Swin",
            32,
            _build("Swin", image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4),
        ),
        (
            "SegFormer",
            32,
            _build(
                "Segformer",
                "SemanticSegmentation",
                num_encoder_blocks=2,
                depths=[2, 2],
                sr_ratios=[2, 1],
                hidden_sizes=[16, 32],
                patch_sizes=[7, 3],
                strides=[4, 2],
                num_attention_heads=[2, 4],
                mlp_ratios=[2, 2],
                decoder_hidden_size=16,
            ),
        ),
    )
}
_TEXT: Mapping[str, Architecture] = {
    name: Architecture("Transformers, with attention", build, _sentence)
    for name, build in (
        ("BERT", _build("Bert", "SequenceClassification", vocab_size=50, **_ATTENTION)),
        (
            "DistilBERT",
            _build("DistilBert", "SequenceClassification", vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32),
        ),
        (
            "MobileBERT",
            _build(
                "MobileBert",
                "SequenceClassification",
                vocab_size=50,
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                embedding_size=16,
                intra_bottleneck_size=16,
                num_feedforward_networks=2,
                true_hidden_size=16,
            ),
        ),
        ("ALBERT", _build("Albert", "SequenceClassification", vocab_size=50, embedding_size=16, **_ATTENTION)),
        (
            "GPT-2",
            _build(
                "GPT2", "LMHeadModel", vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32, use_cache=False
            ),
        ),
        (
            "Llama, grouped-query attention, tied embeddings",
            _build(
                "Llama",
                "CausalLM",
                vocab_size=50,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                tie_word_embeddings=True,
                use_cache=False,
            ),
        ),
    )
}
TRANSFORMERS: Mapping[str, Architecture] = {**_CONVOLUTIONAL, **_VISION, **_TEXT}
