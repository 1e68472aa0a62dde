from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.text import Perplexity

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import Metric
from kneepoint.tasks.standard_errors import bootstrap
from kneepoint.tasks.token_metrics import next_token_perplexity, perplexity, token_accuracy, token_macro_f1

ALL = [token_accuracy, token_macro_f1, perplexity, next_token_perplexity]


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor]:
    """Logits (N, T, C) that know something, and classes (N, T) with padding of different lengths."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(5, (40, 12), generator=generator)
    logits = torch.randn(40, 12, 5, generator=generator)
    logits.scatter_add_(2, targets.unsqueeze(2), torch.full((40, 12, 1), 1.5))
    lengths = torch.randint(3, 13, (40, 1), generator=generator)
    return logits, targets.masked_fill(torch.arange(12) >= lengths, -100)


def test_token_accuracy_agrees_with_torchmetrics(tokens: tuple[Tensor, Tensor]) -> None:
    logits, targets = tokens
    oracle = MulticlassAccuracy(num_classes=5, average="micro", ignore_index=-100)
    assert token_accuracy(logits, targets) == pytest.approx(float(oracle(logits.movedim(-1, 1), targets)))


def test_token_macro_f1_agrees_with_torchmetrics(tokens: tuple[Tensor, Tensor]) -> None:
    logits, targets = tokens
    oracle = MulticlassF1Score(num_classes=5, ignore_index=-100)
    assert token_macro_f1(logits, targets) == pytest.approx(float(oracle(logits.movedim(-1, 1), targets)))


def test_perplexity_agrees_with_torchmetrics(tokens: tuple[Tensor, Tensor]) -> None:
    logits, targets = tokens
    assert perplexity(logits, targets) == pytest.approx(float(Perplexity(ignore_index=-100)(logits, targets)), rel=1e-5)


def test_the_next_token_is_what_a_position_predicts(tokens: tuple[Tensor, Tensor]) -> None:
    logits, targets = tokens
    shifted = perplexity(logits[:, :-1], targets[:, 1:])
    assert next_token_perplexity(logits, targets) == shifted
    assert next_token_perplexity.name == "perplexity"


@pytest.mark.parametrize("metric", ALL[:3])
def test_standard_errors_are_those_of_a_bootstrap_over_sequences(metric: Metric, tokens: tuple[Tensor, Tensor]) -> None:
    error = metric.score(*tokens).error
    assert error == pytest.approx(bootstrap(metric, *tokens), rel=0.3)


def test_outputs_of_transformers_are_read_by_their_logits(tokens: tuple[Tensor, Tensor]) -> None:
    logits, targets = tokens
    outputs = {"loss": torch.zeros(()), "logits": logits}
    assert token_accuracy(outputs, targets) == token_accuracy(logits, targets)


@pytest.mark.parametrize("metric", ALL)
def test_other_shapes_are_refused(metric: Metric) -> None:
    with pytest.raises(TaskError, match=r"outputs of shape \(N, T, C\) and class indices of shape \(N, T\), got"):
        metric(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(TaskError, match=r"got \(2, 3\) and SimpleNamespace"):
        metric(torch.zeros(2, 3), SimpleNamespace())
    with pytest.raises(TaskError, match="with 4 tokens a sequence and as many classes nobody knows which axis"):
        metric(torch.zeros(2, 4, 4), torch.zeros(2, 4, dtype=torch.int64))


@pytest.mark.parametrize("metric", [token_accuracy, perplexity])
def test_no_token_at_all_is_refused(metric: Metric) -> None:
    with pytest.raises(TaskError, match="needs a target that is not -100, got none"):
        metric(torch.zeros(2, 3, 4), torch.full((2, 3), -100))
