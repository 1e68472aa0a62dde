from __future__ import annotations

import pickle
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.text import Perplexity

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric_making import as_metric, from_torchmetrics
from kneepoint.tasks.metrics import accuracy, macro_f1, token_macro_f1

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, CLASSES = torch.randn(300, 4, generator=GENERATOR), torch.randint(4, (300,), generator=GENERATOR)


def largest_error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs - targets).abs().max())


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


def test_a_metric_of_torchmetrics_has_a_name_a_direction_and_a_standard_error() -> None:
    metric = from_torchmetrics(MulticlassF1Score(num_classes=4))
    assert (metric.name, metric.direction, metric.ideal) == ("multiclass_f1_score", "maximize", 1.0)
    score, own = metric.score(LOGITS, CLASSES), macro_f1.score(LOGITS, CLASSES)
    assert score.value == pytest.approx(own.value, abs=1e-6)
    assert score.error == pytest.approx(own.error, rel=0.5)
    assert metric.score({"logits": LOGITS}, CLASSES) == score


def test_it_is_adapted_wherever_a_metric_is_wanted() -> None:
    assert as_metric(MulticlassF1Score(num_classes=4))(LOGITS, CLASSES) == pytest.approx(macro_f1(LOGITS, CLASSES))
    assert as_metric(Perplexity(), name="ppl").direction == "minimize"


def test_every_call_sees_its_own_samples_alone() -> None:
    metric = from_torchmetrics(MulticlassF1Score(num_classes=4), name="f1", error=None)
    first = metric(LOGITS, CLASSES)
    metric(LOGITS, (CLASSES + 1) % 4)
    assert metric(LOGITS, CLASSES) == first
    assert metric.score(LOGITS, CLASSES).error is None


def test_classes_of_tokens_move_to_where_the_metric_wants_them() -> None:
    logits, targets = LOGITS.view(30, 10, 4), CLASSES.view(30, 10)
    metric = from_torchmetrics(MulticlassF1Score(num_classes=4))
    assert metric(logits, targets) == pytest.approx(token_macro_f1(logits, targets), abs=1e-6)
    assert from_torchmetrics(Perplexity())(logits, targets) > 1


def test_its_arguments_can_be_prepared() -> None:
    metric = from_torchmetrics(
        MeanMetric(), name="confidence", direction="maximize", ideal=1.0, prepare=lambda o, t: (o.softmax(1).amax(1),)
    )
    assert metric(LOGITS, CLASSES) == pytest.approx(float(LOGITS.softmax(1).amax(1).mean()))
    assert metric.ideal == 1.0


def test_it_pickles() -> None:
    metric = from_torchmetrics(MulticlassF1Score(num_classes=4))
    assert pickle.loads(pickle.dumps(metric)).score(LOGITS, CLASSES) == metric.score(LOGITS, CLASSES)  # noqa: S301


def test_what_torchmetrics_does_not_say_must_be_given() -> None:
    with pytest.raises(TaskError, match="MeanMetric of torchmetrics does not say whether higher is better: from_torch"):
        from_torchmetrics(MeanMetric())


def test_a_value_for_each_class_is_refused() -> None:
    metric = from_torchmetrics(MulticlassAccuracy(num_classes=4, average=None))
    with pytest.raises(TaskError, match=r"MulticlassAccuracy gives a tensor of shape \(4,\): set its average"):
        metric(LOGITS, CLASSES)


def test_only_metrics_of_torchmetrics_are_adapted() -> None:
    with pytest.raises(TaskError, match=r"from_torchmetrics takes a torchmetrics\.Metric, got function"):
        from_torchmetrics(largest_error)  # type: ignore[arg-type]


def test_without_torchmetrics_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = MulticlassF1Score(num_classes=4)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(TaskError, match=r"not installed: pip install kneepoint\[torchmetrics\]"):
        from_torchmetrics(metric)
