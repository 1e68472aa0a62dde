from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from kneepoint.compression.distillation import Distillation
from kneepoint.compression.settings import CompressionSettings
from kneepoint.search.time_estimate import Effort, TimeEstimate, _samples, estimate_time
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import TaskError
from tests.search import tiny_problem

PARAMETERS = {"teacher": 1000, "small": 100, "smaller": 10}


def settings(student: int, recovery: int) -> CompressionSettings:
    return CompressionSettings(Distillation(student, 1e-3), Distillation(recovery, 1e-3))


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock finds it one millisecond later."""
    ticks = itertools.count()
    monkeypatch.setattr("kneepoint.search.time_estimate.time.perf_counter", lambda: 1e-3 * next(ticks))


def estimated(joint: JointSpace, **changes: Any) -> TimeEstimate:
    found = estimate_time(joint, Effort(**{"settings": settings(600, 150), **changes}), PARAMETERS)
    assert found is not None
    return found


def test_the_parts_add_up_and_say_what_was_measured(joint: JointSpace) -> None:
    found = estimated(joint)
    assert found.parts.keys() == {"trials", "baselines", "students", "finalists"}
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert found.forward_ms == pytest.approx(1.0)
    assert (found.batch, found.validation_samples) == (32, 96)
    assert "1 ms for 32 samples on 1 thread(s)" in found.assumptions[0]


def test_each_part_grows_with_its_own_cause(joint: JointSpace) -> None:
    base = estimated(joint).parts
    more = estimated(joint, settings=settings(1200, 150)).parts
    assert more["students"] == pytest.approx(2 * base["students"])
    assert {**more, "students": 0} == pytest.approx({**base, "students": 0})
    longer = estimated(joint, settings=settings(600, 1500)).parts
    assert longer["finalists"] > base["finalists"]
    assert {**longer, "finalists": 0} == pytest.approx({**base, "finalists": 0})
    twice = estimated(joint, trials=200).parts
    assert twice["trials"] == pytest.approx(2 * base["trials"])
    assert twice["baselines"] == twice["trials"]
    assert twice["finalists"] == pytest.approx(base["finalists"])


def test_minutes_bound_the_search_alone(joint: JointSpace) -> None:
    found = estimated(joint, trials=100_000, minutes=0.5).parts
    assert found["trials"] == 30
    assert found["baselines"] > 30


def test_a_dataset_tells_its_length_and_a_generator_does_not() -> None:
    joint = tiny_problem.space()
    (x, y), *_ = joint.task.validation
    joint.task.validation = DataLoader(TensorDataset(x.repeat(3, 1, 1, 1), y.repeat(3)), batch_size=20)
    assert estimated(joint).validation_samples == 3 * len(x)

    class Endless:
        def __iter__(self) -> Iterator[Any]:
            return iter([(x, y)])

    joint.task.validation = Endless()
    assert estimate_time(joint, Effort(), PARAMETERS) is None


def test_a_failing_first_batch_is_told_in_one_line() -> None:
    joint = tiny_problem.space()
    joint.task.validation = [(torch.zeros(2, 3), torch.zeros(2))]
    with pytest.raises(TaskError, match="validation: the model raised on the first batch: RuntimeError: "):
        estimate_time(joint, Effort(), PARAMETERS)
    joint.task.validation = []
    with pytest.raises(TaskError, match="validation: the loader is empty"):
        estimate_time(joint, Effort(), PARAMETERS)


def test_samples_are_those_that_the_loader_draws() -> None:
    data = TensorDataset(torch.zeros(100, 2))
    chosen = SubsetRandomSampler(range(30))
    assert _samples(DataLoader(data, batch_size=8), 8) == 100
    assert _samples(DataLoader(data, batch_size=8, sampler=chosen), 8) == 30
    assert _samples(DataLoader(data, batch_size=8, sampler=chosen, drop_last=True), 8) == 24
    assert _samples([torch.zeros(8, 2)] * 3, 8) == 24


def test_a_stream_has_no_length() -> None:
    class Stream(IterableDataset[Tensor]):
        def __iter__(self) -> Iterator[Tensor]:
            yield torch.zeros(2)

    assert _samples(DataLoader(Stream(), batch_size=8), 8) is None
    assert _samples(iter([1]), 8) is None
