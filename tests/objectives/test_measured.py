from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kneepoint.deployment import measuring
from kneepoint.deployment.machine import machine_name
from kneepoint.deployment.measuring import measure
from kneepoint.objectives.measured import MeasuredLatency
from kneepoint.objectives.registry import bind_objectives, objective_named
from kneepoint.objectives.view import View
from kneepoint.tasks.errors import InputError, JobFailed, ObjectiveError
from kneepoint.tasks.task import Task
from tests.deployment.small_models import doubler

ViewOf = Callable[..., View]


def with_artifact(view: View, data: bytes) -> View:
    return replace(view, write=lambda: data)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "measured_latency_ms@this-machine"),
        ({"threads": 2}, "measured_latency_ms/threads-2@this-machine"),
        ({"batch": 8}, "measured_latency_ms/batch-8@this-machine"),
        ({"threads": 2, "batch": 8}, "measured_latency_ms/threads-2/batch-8@this-machine"),
    ],
)
def test_the_name_says_how_it_is_measured(arguments: dict[str, Any], name: str, task: Task) -> None:
    made = MeasuredLatency(**arguments)
    assert (made.name, made.device, made.unit, made.direction) == (name, "this-machine", "ms", "minimize")
    found = objective_named(name, task)
    assert isinstance(found, MeasuredLatency)
    assert (found.name, found.threads, found.batch) == (name, made.threads, made.batch)


@pytest.mark.parametrize(
    "name", ["measured_latency_ms", "measured_latency_ms@raspberry-pi-4b", "measured_latency_ms/threads-0@this-machine"]
)
def test_other_names_are_refused(name: str, task: Task) -> None:
    with pytest.raises(ObjectiveError, match=r"is called measured_latency_ms@this-machine, with /threads-2.*got "):
        objective_named(name, task)


def test_two_ways_to_measure_go_together(task: Task) -> None:
    assert len(bind_objectives([MeasuredLatency(), MeasuredLatency(threads=2)], task)) == 2
    with pytest.raises(ObjectiveError, match="'measured_latency_ms@this-machine' is there twice"):
        bind_objectives([MeasuredLatency(), MeasuredLatency(seconds=9)], task)
    with pytest.raises(ObjectiveError, match="did you mean 'measured_latency_ms@this-machine'"):
        objective_named("mesured_latency_ms@this-machine", task)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"batch": 0}, {"seconds": 0}, {"seconds": float("nan")}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ObjectiveError, match="at least one thread, a batch of at least 1 and some seconds"):
        MeasuredLatency(**wrong)


def test_the_score_is_the_median_with_its_error(view_of: ViewOf) -> None:
    score = MeasuredLatency(seconds=1.0).score(with_artifact(view_of(8), doubler(["batch", 1, 12, 12])))
    assert score.value > 0
    assert score.error is not None
    assert score.error >= 0


def test_what_it_times_is_the_artifact_at_the_batch(view_of: ViewOf, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def watched(*arguments: Any) -> Any:
        seen.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(measuring, "measure", watched)
    MeasuredLatency(batch=4, seconds=0.01).score(with_artifact(view_of(8), doubler(["batch", 2])))
    assert seen == [(doubler(["batch", 2]), 1, 4, 0.01)]


def test_a_candidate_that_does_not_run_fails_and_a_machine_that_is_too_small_is_bad_input(view_of: ViewOf) -> None:
    with pytest.raises(JobFailed, match="ONNX Runtime cannot load the model"):
        MeasuredLatency(seconds=0.01).score(with_artifact(view_of(8), b"no model"))
    with pytest.raises(InputError, match="a core for every thread; got 4096 threads"):
        MeasuredLatency(threads=4096).score(with_artifact(view_of(8), b"no model"))


def test_a_view_without_an_artifact_says_so(view_of: ViewOf) -> None:
    with pytest.raises(ObjectiveError, match="a view needs a way to write the artifact"):
        MeasuredLatency().score(replace(view_of(8), write=None))


def test_a_view_writes_its_artifact_once(view_of: ViewOf) -> None:
    models = iter([b"first", b"second"])
    view = replace(view_of(8), write=lambda: next(models))
    assert (view.artifact, view.artifact) == (b"first", b"first")


def test_scores_belong_to_a_machine() -> None:
    assert MeasuredLatency().conditions == machine_name()
