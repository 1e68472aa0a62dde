"""Transformers that read a text have the parameters of the Transformers library's models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from kneepoint.hardware_models import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.registry import NETWORKS, build
from kneepoint.hardware_models.zoo.transformers import answer_span, bert

LARGE: dict[str, Any] = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
}  # fmt: skip
ROBERTA: dict[str, Any] = {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1}


def parameters(model: Any, config: Any) -> int:
    """Of a model that is made without any memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model(config).parameters())


@pytest.mark.parametrize(
    ("name", "model", "config"),
    [
        ("BERT-base seq128", hf.BertForSequenceClassification, hf.BertConfig()),
        ("BERT-large seq128", hf.BertForSequenceClassification, hf.BertConfig(**LARGE)),
        ("BERT-Large SQuAD 384", hf.BertForQuestionAnswering, hf.BertConfig(**LARGE)),
        ("Distil-Bert-Base-Uncased-Hf", hf.DistilBertForMaskedLM, hf.DistilBertConfig()),
        ("DistilBERT base MRPC", hf.DistilBertForSequenceClassification, hf.DistilBertConfig()),
        ("Mobile bert MRPC", hf.MobileBertForSequenceClassification, hf.MobileBertConfig(classifier_activation=False)),
    ],
)
def test_parameters_are_those_of_the_library(name: str, model: Any, config: Any) -> None:
    assert build(name).parameters == parameters(model, config)


def test_types_of_tokens_that_are_all_the_same_are_left_out() -> None:
    missing = parameters(hf.BertForMaskedLM, hf.BertConfig()) - build("Bert-Base-Uncased-Hf").parameters
    assert missing == 2 * 768
    roberta = parameters(hf.RobertaForSequenceClassification, hf.RobertaConfig(**ROBERTA))
    assert roberta - build("Roberta base MRPC").parameters == 768


def test_the_scores_of_words_share_their_table() -> None:
    table = build("Bert-Base-Uncased-Hf")
    named = [entry for entry in table.operators if entry.weight is not None and entry.weight.name == "words"]
    assert [entry.kind for entry in named] == ["embedding", "linear"]
    assert table.tensors[table.outputs[0]].shape == (1, 384, 30_522)
    assert table.storage_bytes < 4.01 * table.parameters


@pytest.mark.parametrize("tokens", [1, 16, 384])
@pytest.mark.parametrize("batch", [1, 3])
def test_work_grows_with_texts_and_with_the_square_of_their_length(tokens: int, batch: int) -> None:
    layers, width = 2, 64
    table = bert(NetworkBuilder(batch), answer_span, tokens=tokens, layers=layers, width=width, heads=4)
    each = layers * (12 * width**2 + 2 * tokens * width) + 2 * width
    assert table.macs == batch * tokens * each


def softmaxes(table: OperatorTable) -> set[tuple[int, ...]]:
    return {table.tensors[entry.output].shape for entry in table.operators if entry.kind == "softmax"}


def test_heads_attend_to_every_token() -> None:
    assert softmaxes(build("BERT-base seq128", 2)) == {(2, 12, 128, 128)}
    assert softmaxes(build("BERT-large seq128")) == {(1, 16, 128, 128)}
    assert softmaxes(build("Mobile-Bert-Uncased-Google")) == {(1, 4, 384, 384)}


def test_rows_that_leave_out_padding_are_not_compared() -> None:
    squad = NETWORKS["BERT-Large SQuAD 384"]
    assert not squad.comparable
    assert "padding" in squad.note
    assert NETWORKS["BERT-base seq128"].comparable
