from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassF1Score

from kneepoint.tasks.class_metrics import accuracy, class_counts, cross_entropy, macro_f1
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import Metric

LOGITS = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 0.0]])
CLASSES = torch.tensor([0, 1, 1, 0])


def test_accuracy_is_the_share_of_right_predictions_with_a_binomial_error() -> None:
    score = accuracy.score(LOGITS, CLASSES)
    assert score.value == 0.75
    assert score.error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


def test_accuracy_of_dense_outputs_counts_positions_and_takes_its_error_over_samples() -> None:
    dense = torch.zeros(2, 3, 4, 4)
    dense[:, 1] = 1
    targets = torch.ones(2, 4, 4, dtype=torch.int64)
    targets[0, :2] = 0
    score = accuracy.score(dense, targets)
    assert score.value == 0.75
    assert score.error == pytest.approx(torch.tensor([0.5, 1.0]).std().item() / math.sqrt(2))


def test_accuracy_refuses_targets_that_are_no_class_indices() -> None:
    with pytest.raises(TaskError, match=r"class indices of shape \(N, \.\.\.\), got \(4, 2\) and \(4, 2\)"):
        accuracy.score(LOGITS, LOGITS)


def test_cross_entropy_agrees_with_torch() -> None:
    assert cross_entropy(LOGITS, CLASSES) == pytest.approx(F.cross_entropy(LOGITS, CLASSES).item())
    assert cross_entropy.direction == "minimize"


def test_ignored_positions_count_neither_right_nor_wrong() -> None:
    dense = torch.zeros(2, 3, 4, 4)
    dense[:, 1] = 1
    targets = torch.ones(2, 4, 4, dtype=torch.int64)
    targets[0, :2] = -100
    targets[1, :1] = 0
    assert accuracy(dense, targets) == pytest.approx((1 + 0.75) / 2)
    each = [F.cross_entropy(dense[index : index + 1], targets[index : index + 1]).item() for index in range(2)]
    assert cross_entropy(dense, targets) == pytest.approx(sum(each) / 2, rel=1e-6)


def test_a_sample_without_a_counted_position_is_refused() -> None:
    targets = torch.tensor([[0, 1], [-100, -100]])
    with pytest.raises(TaskError, match=r"every sample needs a target that is not -100, sample 1 of a batch has none"):
        accuracy(torch.zeros(2, 3, 2), targets)


@pytest.mark.parametrize("metric", [accuracy, cross_entropy, macro_f1])
def test_logits_of_tokens_are_told_where_to_go(metric: Metric) -> None:
    with pytest.raises(TaskError, match=r"got \(2, 5, 3\) and \(2, 5\): for a prediction a token, .*token_accuracy"):
        metric.score(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(200, 4), (20, 4, 3, 3)])
def test_macro_f1_agrees_with_torchmetrics(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    targets = torch.randint(3, (shape[0], *shape[2:]), generator=generator)  # one class is never a target
    logits[:, 3] -= 9.0  # nor predicted
    score = macro_f1.score(logits, targets)
    assert score.value == pytest.approx(float(MulticlassF1Score(num_classes=4)(logits, targets)), abs=1e-6)
    assert score.error is not None
    assert 0 < score.error < 0.1


def test_counts_leave_ignored_positions_out() -> None:
    counts = class_counts(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 2, -100]]), 3)
    assert counts.tolist() == [[[1, 0, 0], [1, 1, 0], [1, 0, 1]]]
