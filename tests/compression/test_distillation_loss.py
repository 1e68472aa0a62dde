from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression.distillation import Distillation, distillation_loss
from kneepoint.compression.distillation_loss import DistillationLoss
from kneepoint.compression.gap_schedule import GapSchedule
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task

SpaceOf = Callable[[str], JointSpace]


@pytest.fixture
def task(space_of: SpaceOf) -> Task:
    return space_of("vision").task


@pytest.fixture
def student() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def loss_of(task: Task, student: nn.Module, **settings: float) -> DistillationLoss:
    return distillation_loss(task, student, Distillation(10, 1e-3, **settings))  # type: ignore[arg-type]  # floats and flags


def value(loss: DistillationLoss, task: Task, student: nn.Module) -> float:
    inputs, targets = next(iter(task.train))
    with torch.no_grad():
        return float(loss(student, inputs, targets))


def test_alpha_weighs_both_parts(task: Task, student: nn.Module) -> None:
    inputs, targets = next(iter(task.train))
    hard, soft, half = (value(loss_of(task, student, alpha=alpha), task, student) for alpha in (0.0, 1.0, 0.5))
    assert hard == pytest.approx(F.cross_entropy(student(inputs), targets).item())
    assert half == pytest.approx((hard + soft) / 2)


def test_what_is_not_said_is_what_suits_the_problem(task: Task, student: nn.Module) -> None:
    said = value(loss_of(task, student, temperature=2.0, alpha=0.7), task, student)
    assert value(loss_of(task, student), task, student) == said
    assert value(loss_of(task, student, temperature=3.0), task, student) != said


def test_the_general_stage_learns_from_the_teacher_alone(task: Task, student: nn.Module) -> None:
    loss = loss_of(task, student, general_share=0.2, alpha=0.0)
    soft, hard = (value(loss_of(task, student, alpha=alpha), task, student) for alpha in (1.0, 0.0))
    assert [value(loss, task, student) for _ in range(4)] == [soft, soft, hard, hard]


def test_the_gap_moves_temperature_and_alpha(task: Task, student: nn.Module) -> None:
    loss = loss_of(task, student, follow_gap=True)
    value(loss, task, student)
    assert isinstance(loss.schedule, GapSchedule)
    first = float(loss.schedule.gap)
    value(loss, task, student)
    assert 0 < float(loss.schedule.gap) < first < 1


def test_hints_add_their_share(task: Task) -> None:
    student = task.model  # which is its own teacher, inside, too
    without = value(loss_of(task, student), task, student)
    assert value(loss_of(task, student, hidden_hints=0.5), task, student) == pytest.approx(without, abs=1e-5)
    with seeded(0):
        other = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3))
    loss = loss_of(task, other, hidden_hints=0.5)
    assert loss.hints is not None
    hidden = (value(loss, task, other) - value(loss_of(task, other), task, other)) / 0.5
    assert 0 < hidden < 4


def test_hints_where_no_shapes_fit_are_none(task: Task, student: nn.Module) -> None:
    loss = loss_of(task, student, hidden_hints=0.5, attention_hints=0.5)
    assert loss.hints is None
    assert loss_of(task, task.model, attention_hints=0.5).hints is None  # it has no attention
    assert value(loss, task, student) == value(loss_of(task, student), task, student)


def test_the_teacher_is_no_part_of_what_is_trained(task: Task, student: nn.Module) -> None:
    loss = loss_of(task, student, follow_gap=True, dynamic_weights=True)
    assert list(loss.parameters()) == []
    assert {name for name, _ in loss.named_buffers()} == {
        "calls",
        "weights.sums",
        "weights.counts",
        "weights.means",
        "schedule.gap",
    }


def test_dynamic_weights_begin_at_those_that_were_given(task: Task, student: nn.Module) -> None:
    loss = loss_of(task, student, dynamic_weights=True)
    assert value(loss, task, student) == pytest.approx(value(loss_of(task, student), task, student))


def outputs_in(dtype: torch.dtype) -> Callable[[nn.Module, tuple[object, ...], Tensor], Tensor]:
    return lambda module, args, output: output.to(dtype)


def test_outputs_in_half_precision_are_compared_in_float32(task: Task, student: nn.Module) -> None:
    exact = value(loss_of(task, student, alpha=1.0), task, student)
    student.register_forward_hook(outputs_in(torch.bfloat16))
    assert value(loss_of(task, student, alpha=1.0), task, student) == pytest.approx(exact, rel=0.02)
