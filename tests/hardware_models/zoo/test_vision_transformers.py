"""Vision transformers."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models.zoo.registry import build, find


@pytest.mark.parametrize(
    ("name", "tokens", "parameters"),
    [("VIT", 197, 86_567_656), ("ViT-B (ncnn vision_transformer) 384", 145, 88_297_192)],
)
def test_patches_and_a_class_token(name: str, tokens: int, parameters: int) -> None:
    table = build(name)
    assert table.parameters == parameters
    assert table.tensors[table.outputs[0]].shape == (1, 1000)
    norms = {table.tensors[entry.output].shape for entry in table.operators if entry.kind == "layer_norm"}
    assert norms == {(1, tokens, 768)}


def test_the_source_says_how_large_patches_are() -> None:
    assert "32 pixels" in find("ViT-B (ncnn vision_transformer) 384").source
