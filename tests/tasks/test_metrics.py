from __future__ import annotations

import math
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metrics import (
    Metric,
    Score,
    accuracy,
    as_metric,
    cross_entropy,
    mean_absolute_error,
    mean_squared_error,
)

LOGITS = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 0.0]])
CLASSES = torch.tensor([0, 1, 1, 0])


def largest_error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs - targets).abs().max())


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


def test_regression_metrics_agree_with_torch() -> None:
    outputs, targets = torch.randn(5, 3), torch.randn(5, 3)
    assert mean_squared_error(outputs, targets) == pytest.approx(F.mse_loss(outputs, targets).item())
    assert mean_absolute_error(outputs, targets) == pytest.approx(F.l1_loss(outputs, targets).item())


def test_regression_metrics_refuse_to_broadcast() -> None:
    with pytest.raises(TaskError, match=r"must have one shape, got \(5, 1\) and \(5,\)"):
        mean_squared_error(torch.zeros(5, 1), torch.zeros(5))


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=30))
def test_the_score_of_a_per_sample_metric_is_its_mean_and_standard_error(values: list[float]) -> None:
    outputs = torch.tensor(values)
    score = mean_absolute_error.score(outputs, torch.zeros_like(outputs))
    absolute = outputs.double().abs()
    assert score.value == pytest.approx(mean_absolute_error(outputs, torch.zeros_like(outputs)))
    assert score.error is not None
    if not ((absolute == 0) | (absolute == 1)).all():
        assert score.error == pytest.approx(absolute.std().item() / math.sqrt(len(values)))


def test_a_single_sample_has_no_standard_error() -> None:
    assert accuracy.score(LOGITS[:1], CLASSES[:1]) == Score(1.0, None)


def test_a_metric_without_per_sample_has_no_standard_error() -> None:
    assert as_metric(largest_error).score(torch.ones(3), torch.zeros(3)) == Score(1.0, None)


@pytest.mark.parametrize("shape", [(), (4, 2), (0,)])
def test_per_sample_must_give_one_value_a_sample(shape: tuple[int, ...]) -> None:
    metric = Metric(largest_error, "odd", per_sample=lambda outputs, targets: torch.zeros(shape))
    with pytest.raises(TaskError, match="per_sample of metric 'odd' must give one value a sample"):
        metric.score(LOGITS, CLASSES)


def test_outputs_in_a_dict_reach_the_function() -> None:
    def boxes_found(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> float:
        return float(outputs["boxes"].sum() / targets["boxes"].sum())

    assert as_metric(boxes_found).score({"boxes": torch.ones(2)}, {"boxes": torch.ones(4)}).value == 0.5


def test_a_function_gets_its_name_and_is_maximized_unless_it_says_otherwise() -> None:
    metric = as_metric(largest_error)
    assert (metric.name, metric.direction, metric.unit, metric.ideal) == ("largest_error", "maximize", "", None)


def test_a_function_declares_itself_by_its_attributes() -> None:
    def loss_of_money(outputs: Any, targets: Any) -> float:
        return 1.0

    loss_of_money.direction = "minimize"  # type: ignore[attr-defined]
    loss_of_money.unit = "EUR"  # type: ignore[attr-defined]
    metric = as_metric(loss_of_money)
    assert (metric.direction, metric.unit) == ("minimize", "EUR")


def test_name_and_direction_given_win() -> None:
    metric = as_metric(accuracy, name="top1", direction="minimize")
    assert (metric.name, metric.direction, metric.per_sample) == ("top1", "minimize", accuracy.per_sample)
    assert as_metric(accuracy) == accuracy


@pytest.mark.parametrize("function", [lambda outputs, targets: 1.0, partial(largest_error)])
def test_a_nameless_function_needs_a_name(function: Any) -> None:
    with pytest.raises(TaskError, match=r"a metric needs a name, got <.*>: use as_metric\(function, name=\.\.\.\)"):
        as_metric(function)
    assert as_metric(function, name="named").name == "named"


def test_what_cannot_be_called_is_no_metric() -> None:
    with pytest.raises(TaskError, match=r"a metric must be a function of \(outputs, targets\), got float"):
        as_metric(0.5)  # type: ignore[arg-type]


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(TaskError, match="must be 'maximize' or 'minimize', metric 'largest_error' has 'up'"):
        as_metric(largest_error, direction="up")  # type: ignore[arg-type]


@given(st.floats(allow_nan=False), st.none() | st.floats(min_value=0, allow_nan=False))
def test_a_score_survives_json(value: float, error: float | None) -> None:
    score = Score(value, error)
    assert Score.from_json(score.to_json()) == score


def test_a_score_without_an_error_reads_as_unknown() -> None:
    assert Score.from_json({"value": 1}) == Score(1.0, None)


@pytest.mark.parametrize("metric", [accuracy, cross_entropy, mean_squared_error, mean_absolute_error])
def test_the_ready_metrics_pickle(metric: Metric) -> None:
    assert pickle.loads(pickle.dumps(metric)) == metric  # noqa: S301
