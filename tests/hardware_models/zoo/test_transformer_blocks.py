"""Blocks that are written down look like those that are traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from kneepoint.hardware_models import FUSION_RULES, OperatorTable, fuse
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.transformers import bert, classifier
from kneepoint.hardware_models.zoo.vision_transformers import vision_transformer
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def lowered(module: nn.Module, example: Any) -> OperatorTable:
    return lower(Network(module.eval(), example), Policy.build())


def kernels(table: OperatorTable) -> list[Any]:
    return [kernel.row for kernel in fuse(table, FUSION_RULES)]


def traced_vit() -> OperatorTable:
    labels: dict[str, Any] = {"num_labels": 10}
    config = hf.ViTConfig(**SIZES, **labels, intermediate_size=64, image_size=32)
    return lowered(hf.ViTForImageClassification(config), (torch.rand(1, 3, 32, 32),))


def traced_bert() -> OperatorTable:
    config = hf.BertConfig(**SIZES, intermediate_size=128, vocab_size=50, max_position_embeddings=20)
    tokens = torch.zeros(1, 16, dtype=torch.long)
    return lowered(hf.BertForSequenceClassification(config), {"input_ids": tokens, "token_type_ids": tokens})


def written_vit() -> OperatorTable:
    return vision_transformer(
        NetworkBuilder(), resolution=32, patch=16, layers=2, width=32, heads=2, hidden=64, classes=10
    )


def written_bert() -> OperatorTable:
    sizes: dict[str, Any] = {"tokens": 16, "layers": 2, "width": 32, "heads": 2, "vocabulary": 50, "positions": 20}
    return bert(NetworkBuilder(), classifier, **sizes, masked=False)


@pytest.mark.parametrize(("traced", "written"), [(traced_vit, written_vit), (traced_bert, written_bert)])
def test_what_is_written_costs_what_is_traced(traced: Any, written: Any) -> None:
    before, after = traced(), written()
    assert (after.parameters, after.macs) == (before.parameters, before.macs)
    assert kernels(after) == kernels(before)
