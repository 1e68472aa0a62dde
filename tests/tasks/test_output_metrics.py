from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import Metric
from kneepoint.tasks.metrics import accuracy, as_metric, box_iou, macro_f1, mean_squared_error
from kneepoint.tasks.output_metrics import mean_of_outputs, of_output

LOGITS, DIGITS = torch.randn(20, 3), torch.randint(3, (20,))
BOXES = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(20, 1)
OUTPUTS, TARGETS = {"digit": LOGITS, "box": BOXES}, {"digit": DIGITS, "box": BOXES}


@pytest.mark.parametrize("metric", [accuracy, macro_f1, Metric(macro_f1.function, "f1", error="jackknife")])
def test_a_metric_of_one_output_is_the_metric_of_that_output(metric: Metric) -> None:
    picked = of_output("digit", metric)
    assert picked.score(OUTPUTS, TARGETS) == metric.score(LOGITS, DIGITS)
    assert (picked.name, picked.ideal) == (f"digit_{metric.name}", metric.ideal)
    assert (picked.per_sample is None) == (metric.per_sample is None)


def test_outputs_and_targets_by_position_or_by_another_key() -> None:
    assert of_output(0, accuracy)((LOGITS, BOXES), (DIGITS, BOXES)) == accuracy(LOGITS, DIGITS)
    assert of_output(0, accuracy).name == "accuracy"
    other = of_output("digit", accuracy, target="label", name="right")
    assert other(OUTPUTS, {"label": DIGITS}) == accuracy(LOGITS, DIGITS)
    assert other.name == "right"


def test_one_tensor_of_targets_is_taken_whole() -> None:
    assert of_output("digit", accuracy)(OUTPUTS, DIGITS) == accuracy(LOGITS, DIGITS)


def test_a_bare_function_and_its_own_error_see_one_output() -> None:
    def largest(outputs: Tensor, targets: Tensor) -> float:
        return float(outputs.max())

    largest.error = lambda outputs, targets: float(outputs.min())  # type: ignore[attr-defined]
    score = of_output("box", as_metric(largest)).score(OUTPUTS, TARGETS)
    assert (score.value, score.error) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("key", "outputs", "message"),
    [
        ("mask", OUTPUTS, r"there is no output 'mask' among the outputs \['box', 'digit'\]"),
        (2, (LOGITS, BOXES), "there is no output 2 among 2 outputs"),
        ("box", (LOGITS, BOXES), "output 'box' is picked from a tuple by position or from a dict by key, got tuple"),
        (0, LOGITS, "output 0 is picked from a tuple by position or from a dict by key, got Tensor"),
    ],
)
def test_an_output_that_is_not_there_is_named(key: str | int, outputs: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        of_output(key, accuracy)(outputs, DIGITS)


def test_the_mean_of_outputs_weighs_them_and_has_an_error() -> None:
    mean = mean_of_outputs({"digit": accuracy, "box": box_iou}, "score", {"digit": 3.0, "box": 1.0})
    right = accuracy(LOGITS, DIGITS)
    score = mean.score(OUTPUTS, TARGETS)
    assert score.value == pytest.approx(0.75 * right + 0.25)
    assert score.error == pytest.approx(0.75 * torch.std((LOGITS.argmax(1) == DIGITS).double()).item() / 20**0.5)
    assert (mean.ideal, mean.direction, mean.per_sample is None) == (1.0, "maximize", False)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(TaskError, match="must have one direction, got"):
        mean_of_outputs({"digit": accuracy, "box": mean_squared_error}, "score")
    with pytest.raises(TaskError, match="must be means over samples, 'macro_f1' is none: make it an objective"):
        mean_of_outputs({"digit": macro_f1}, "score")
    with pytest.raises(TaskError, match=r"weights must be positive, one for each of \['digit'\], got \{'box': 1.0\}"):
        mean_of_outputs({"digit": accuracy}, "score", {"box": 1.0})
    with pytest.raises(TaskError, match=r"one for each of \[\], got \{\}"):
        mean_of_outputs({}, "score")


def test_they_pickle() -> None:
    for metric in (of_output("digit", macro_f1), mean_of_outputs({"digit": accuracy, "box": box_iou}, "score")):
        assert pickle.loads(pickle.dumps(metric)) == metric  # noqa: S301
