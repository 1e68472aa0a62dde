from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kneepoint.deployment.parity import LARGEST_DEVIATION, TOLERANCE, Parity, compare
from kneepoint.tasks.errors import ParityError, TaskError
from kneepoint.tasks.metrics import Score, as_metric
from kneepoint.tasks.task import Task


def parity(simulated: float = 0.9, executed: float = 0.9, deviation: float = 0.0) -> Parity:
    return Parity(Score(simulated), Score(executed), None, TOLERANCE, deviation)


@pytest.mark.parametrize(
    ("case", "passed"),
    [
        (parity(), True),
        (parity(executed=0.8951), True),
        (parity(executed=0.8949), False),
        (parity(executed=0.9051), False),
        (parity(executed=math.nan), False),
        (parity(deviation=LARGEST_DEVIATION), True),
        (parity(deviation=1.01 * LARGEST_DEVIATION), False),
        (parity(deviation=math.nan), False),
    ],
)
def test_scores_and_outputs_must_both_agree(case: Parity, passed: bool) -> None:
    assert case.passed is passed
    if passed:
        case.require("model.onnx")
    else:
        with pytest.raises(ParityError, match=r"model.onnx: .* simulated 0.9000, ONNX Runtime [0-9n]"):
            case.require("model.onnx")


def with_loader(task: Task, loader: Any, **changes: Any) -> Task:
    given = {"metric": task.metric, "loss": task.loss, **changes}
    return Task(task.model, task.example_input, train=task.train, validation=loader, **given)


class Restless:
    """Hands out its batches in another order every time, whatever the global seed is."""

    def __init__(self, batches: Any) -> None:
        self.batches = list(batches)
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        generator = torch.Generator().manual_seed(self.passes)
        for inputs, targets in self.batches:
            order = torch.randperm(len(targets), generator=generator)
            yield inputs[order], targets[order]


def test_simulator_and_artifact_run_on_the_very_same_samples_once(bench: Any) -> None:
    exported = bench.export("sound", "8")
    loader = Restless(exported.task.validation)
    task = with_loader(exported.task, loader)
    found = compare(exported.data, task, exported.compressed.module)
    assert loader.passes == 1
    assert found.deviation < 0.005
    assert found.agreement == 1.0


def test_the_simulated_score_is_the_one_that_was_measured(bench: Any) -> None:
    exported = bench.export("residual", "4")
    found = compare(exported.data, exported.task, exported.compressed.module)
    measured = exported.task.metric.score(*exported.task.predict(exported.compressed.module))
    assert found.simulated == measured
    assert found.difference == found.executed.value - measured.value


def test_another_candidate_s_artifact_does_not_pass(bench: Any) -> None:
    exported, other = bench.export("residual", "8"), bench.compressed("residual", "student")
    found = compare(exported.data, exported.task, other.module)
    assert not found.passed
    assert found.deviation > LARGEST_DEVIATION


@pytest.mark.parametrize("name", ["pair", "named"])
def test_several_outputs_reach_the_metric_in_the_network_s_own_structure(bench: Any, name: str) -> None:
    exported = bench.export(name, "8")
    found = compare(exported.data, exported.task, exported.compressed.module)
    assert found.passed
    assert found.executed == found.simulated
    assert found.agreement == 1.0


def dense(outputs: Tensor, targets: Tensor) -> float:
    return float(outputs.sum()) * 0.0


@pytest.mark.parametrize("targets", [torch.zeros(32), torch.zeros(32, 3, dtype=torch.int64)])
def test_agreement_is_for_class_scores_alone(bench: Any, targets: Tensor) -> None:
    exported = bench.export("sound", "8")
    loader = [(inputs, targets) for inputs, _ in exported.task.validation]
    task = with_loader(exported.task, loader, metric=as_metric(dense))
    found = compare(exported.data, task, exported.compressed.module)
    assert found.agreement is None
    assert found.passed


def test_the_tolerance_grows_with_metrics_beyond_one(bench: Any) -> None:
    exported = bench.export("sound", "8")
    task = with_loader(exported.task, exported.task.validation, metric=as_metric(lambda o, t: 200.0, name="level"))
    assert compare(exported.data, task, exported.compressed.module).tolerance == 200 * TOLERANCE


def test_an_empty_split_is_refused(bench: Any) -> None:
    exported = bench.export("sound", "8")
    with pytest.raises(TaskError, match=r"validation: the loader gave no batches"):
        compare(exported.data, with_loader(exported.task, []), exported.compressed.module)


class Echo(torch.nn.Module):
    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, x: Tensor) -> Tensor:
        return self.answers


def test_equal_infinities_are_equal_outputs(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = bench.export("sound", "8")
    masked = torch.tensor([[1.0, -torch.inf]]).repeat(32, 1)
    monkeypatch.setattr("kneepoint.deployment.runtime.answer", lambda session, inputs, like: masked)
    task = with_loader(exported.task, list(exported.task.validation)[:1])
    found = compare(exported.data, task, Echo(masked))
    assert found.deviation == 0.0
    assert replace(found, deviation=0.5).passed is False
