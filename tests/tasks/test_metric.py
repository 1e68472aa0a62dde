from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import Metric, Score, of_samples, of_sums
from kneepoint.tasks.metrics import accuracy, as_metric, mean_absolute_error

LOGITS = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 0.0]])
CLASSES = torch.tensor([0, 1, 1, 0])


def largest_error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs - targets).abs().max())


def mean_error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs - targets).abs().mean())


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


@given(st.floats(allow_nan=False), st.none() | st.floats(min_value=0, allow_nan=False))
def test_a_score_survives_json(value: float, error: float | None) -> None:
    score = Score(value, error)
    assert Score.from_json(score.to_json()) == score


def test_a_score_without_an_error_reads_as_unknown() -> None:
    assert Score.from_json({"value": 1}) == Score(1.0, None)


@pytest.mark.parametrize("error", ["jackknife", "bootstrap"])
def test_resampling_gives_a_metric_without_per_sample_an_error(error: str) -> None:
    outputs, targets = torch.randn(400), torch.zeros(400)
    score = Metric(mean_error, "mean_error", error=error).score(outputs, targets)  # type: ignore[arg-type]
    expected = mean_absolute_error.score(outputs, targets).error
    assert score.error == pytest.approx(expected, rel=0.5)
    assert score == Metric(mean_error, "mean_error", error=error).score(outputs, targets)  # type: ignore[arg-type]


def test_a_metric_brings_its_own_error() -> None:
    metric = Metric(mean_error, "mean_error", error=lambda outputs, targets: 0.25)
    assert metric.score(torch.ones(3), torch.zeros(3)) == Score(1.0, 0.25)


def test_an_unknown_way_to_an_error_is_refused() -> None:
    with pytest.raises(TaskError, match="error is one of 'jackknife', 'bootstrap', a function or None; metric 'm' has"):
        Metric(mean_error, "m", error="guess")  # type: ignore[arg-type]


def test_a_function_of_sums_has_the_error_of_the_delta_method() -> None:
    def squares(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(targets), (outputs - targets).square()], dim=1)

    outputs, targets = torch.randn(50), torch.zeros(50)
    metric = of_sums(squares, lambda sums: (sums[1] / sums[0]).sqrt(), "rmse", "minimize", 0.0, "m")
    score = metric.score(outputs, targets)
    squared = outputs.double().square()
    assert score.value == pytest.approx(squared.mean().sqrt().item())
    # d sqrt(m) = dm / (2 sqrt(m))
    expected = squared.std().item() / math.sqrt(50) / (2 * squared.mean().sqrt().item())
    assert score.error == pytest.approx(expected, rel=1e-6)
    assert metric(outputs, targets) == pytest.approx(score.value)
    assert (metric.unit, metric.per_sample) == ("m", None)


def test_a_function_of_sums_of_one_sample_has_no_error() -> None:
    metric = of_sums(lambda outputs, targets: outputs.unsqueeze(1), lambda sums: sums[0], "sum")
    assert metric.score(torch.tensor([3.0]), torch.zeros(1)) == Score(3.0, None)


def test_a_mean_of_samples_is_raced_by_what_it_is_made_of() -> None:
    metric = of_samples(lambda outputs, targets: (outputs > targets).double(), "above", ideal=1.0)
    assert metric.per_sample is not None
    assert metric(torch.tensor([1.0, -1.0]), torch.zeros(2)) == 0.5
