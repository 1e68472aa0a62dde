from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kneepoint.compression.teacher_outputs import (
    _KEPT,
    TeacherOutputs,
    ask,
    digests,
    may_recur,
    recurs,
    teacher_outputs,
)
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task

ROOM = 10**6


class Counting(nn.Module):
    """A teacher that counts the samples it was asked for, and says two things about each."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.drop = nn.Dropout(0.5)
        self.asked = 0

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        self.asked += len(x)
        return {"logits": self.drop(self.linear(x + y[:, None])), "nothing": None, "x": x}


class Augmented:
    """Batches that are other ones at every pass."""

    def __init__(self, batches: int = 3) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.batches):
            yield (torch.randn(4, 3), torch.randn(4)), torch.zeros(4)


def teacher_of(task: Task) -> Counting:
    assert isinstance(task.model, Counting)
    return task.model


def task_of(train: Iterable[Any]) -> Task:
    with seeded(0):
        model = Counting()
    return Task(model, (torch.zeros(1, 3), torch.zeros(1)), train, train)


@pytest.fixture
def task() -> Task:
    with seeded(1):
        data = TensorDataset(torch.randn(20, 3), torch.randn(20), torch.zeros(20))

    def pairs(samples: Any) -> Any:
        x, y, targets = (torch.stack(column) for column in zip(*samples, strict=True))
        return (x, y), targets

    return task_of(DataLoader(data, batch_size=6, shuffle=True, collate_fn=pairs))


def test_shuffled_and_batched_anew_the_outputs_are_the_teachers(task: Task) -> None:
    outputs = TeacherOutputs(task, ROOM)
    asked = teacher_of(task).asked
    assert (len(outputs), asked) == (20, 20)
    for inputs, _ in task.train:
        found, expected = outputs.of(task, inputs), ask(task, inputs)
        assert found["nothing"] is None
        torch.testing.assert_close(found["logits"], expected["logits"])
        assert torch.equal(found["x"], inputs[0])
    assert teacher_of(task).asked == asked + 20  # by the test alone


def test_what_is_kept_does_not_depend_on_what_ran_before(task: Task) -> None:
    first = TeacherOutputs(task, ROOM)
    torch.rand(3)
    second = TeacherOutputs(task, ROOM)
    inputs, _ = next(iter(task.train))
    assert torch.equal(first.of(task, inputs)["logits"], second.of(task, inputs)["logits"])


def test_a_batch_with_an_unknown_sample_is_asked_as_a_whole(task: Task) -> None:
    outputs = TeacherOutputs(task, ROOM)
    x, y = next(iter(task.train))[0]
    changed = x.clone()
    changed[2] += 1e-6
    assert torch.equal(outputs.of(task, (changed, y))["logits"], ask(task, (changed, y))["logits"])


def test_no_more_is_kept_than_there_is_room_for(task: Task) -> None:
    batch = 6 * (2 + 3) * 4  # bytes of outputs
    assert len(TeacherOutputs(task, 2 * batch)) == 12
    assert len(TeacherOutputs(task, batch - 1)) == 0


def test_augmented_data_is_noticed_before_the_teacher_runs() -> None:
    task = task_of(Augmented())
    assert not recurs(task)
    outputs = TeacherOutputs(task, ROOM)
    assert (len(outputs), teacher_of(task).asked) == (0, 0)
    inputs, _ = next(iter(task.train))
    assert torch.equal(outputs.of(task, inputs)["logits"], ask(task, inputs)["logits"])


def test_nothing_recurs_in_less_than_two_passes_or_in_data_without_a_length(task: Task) -> None:
    assert (may_recur(task, 8), may_recur(task, 7)) == (True, False)
    assert not may_recur(task_of(iter(())), 10**6)


def test_all_trainings_share_the_outputs_until_the_teacher_changes(task: Task) -> None:
    first = teacher_outputs(task, ROOM)
    assert teacher_outputs(task, ROOM) is first
    assert teacher_outputs(task, 10) is not first
    with torch.no_grad():
        teacher_of(task).linear.weight.mul_(2)
    assert teacher_outputs(task, ROOM) is not first


def test_a_task_that_is_gone_takes_its_outputs_along(task: Task) -> None:
    other = task_of(list(task.train))
    teacher_outputs(other, ROOM)
    before = len(_KEPT)
    del other
    gc.collect()
    assert len(_KEPT) == before - 1


def test_the_teacher_keeps_its_mode_and_is_asked_in_eval_mode(task: Task) -> None:
    inputs, _ = next(iter(task.train))
    task.model.train()
    assert torch.equal(ask(task, inputs)["logits"], ask(task, inputs)["logits"])
    assert task.model.training


def test_digests_tell_samples_types_and_shapes_apart() -> None:
    rows = torch.arange(6, dtype=torch.float32).view(3, 2)
    assert len(set(digests(rows))) == 3
    assert digests(rows)[1:] == digests(rows[1:])
    others = [rows.view(3, 1, 2), rows.view(torch.int32), rows + 1e-3, (rows, rows), {"a": rows > 1}]
    assert all(set(digests(rows)).isdisjoint(digests(other)) for other in others)
    assert digests(torch.zeros(2, dtype=torch.bfloat16))[0] == digests(torch.zeros(2, dtype=torch.bfloat16))[1]
