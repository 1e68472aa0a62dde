from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kneepoint.compression.distillation import Distillation, begin_distillation, distill, distillation_loss, soft_loss
from kneepoint.compression.student_store import load_tensors, store_tensors
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.seeding import seeded

SpaceOf = Callable[[str], JointSpace]


def test_a_perfect_student_has_no_soft_loss() -> None:
    logits, classes = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert float(soft_loss(logits, logits, classes, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(soft_loss((logits, logits), (logits, logits), torch.zeros(5), 2.0)) == 0


def test_the_soft_loss_is_that_of_hinton() -> None:
    student, teacher, classes = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    soft_teacher, soft_student = F.softmax(teacher / 3, 1), F.softmax(student / 3, 1)
    expected = 9 * (soft_teacher * (soft_teacher / soft_student).log()).sum(1).mean()
    torch.testing.assert_close(soft_loss(student, teacher, classes, 3.0), expected)


def test_maps_of_classes_are_classified_too() -> None:
    student, teacher, classes = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)
    rows, taught = (outputs.permute(0, 2, 3, 1).reshape(-1, 3) for outputs in (student, teacher))
    expected = soft_loss(rows, taught, torch.zeros(32, dtype=torch.long), 2.0)
    torch.testing.assert_close(soft_loss(student, teacher, classes, 2.0), expected)


def test_other_targets_are_imitated_by_their_squared_error() -> None:
    outputs, taught = torch.randn(4, 2), torch.randn(4, 2)
    assert torch.equal(soft_loss(outputs, taught, torch.randn(4, 2), 2.0), F.mse_loss(outputs, taught))


def test_alpha_weighs_both_parts(space_of: SpaceOf) -> None:
    task = space_of("vision").task
    inputs, targets = next(iter(task.train))
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        hard, soft, half = (
            float(distillation_loss(task, Distillation(1, 1e-3, alpha=alpha))(student, inputs, targets))
            for alpha in (0.0, 1.0, 0.5)
        )
        assert hard == pytest.approx(float(F.cross_entropy(student(inputs), targets)))
    assert half == pytest.approx((hard + soft) / 2)


def test_a_student_comes_nearer_and_the_teacher_keeps_its_mode(space_of: SpaceOf) -> None:
    task = space_of("vision").task
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    task.model.train()
    task.model.before.eval()  # type: ignore[union-attr]  # a module, frozen by the user
    try:
        losses = distill(task, student, Distillation(30, 1e-2, alpha=1.0), seed=0)
        assert task.model.training
        assert not task.model.before.training  # type: ignore[union-attr]  # a module
    finally:
        task.model.eval()
    assert losses[-1] < losses[0]


def test_distillation_stops_anywhere_and_goes_on_from_a_file(space_of: SpaceOf, tmp_path: Path) -> None:
    task, settings = space_of("vision").task, Distillation(6, 1e-2)
    with seeded(0):
        students = [nn.Sequential(nn.Flatten(), nn.Linear(64, 3))]
    students += [copy.deepcopy(students[0]) for _ in range(2)]
    losses = distill(task, students[0], settings, seed=1)
    first = begin_distillation(task, students[1], settings, seed=1)
    before = first.advance(4)
    stored = store_tensors(tmp_path, first.state())
    second = begin_distillation(task, students[2], settings, seed=1)
    second.restore(load_tensors(tmp_path, stored))
    assert (first.step, second.step, second.steps) == (4, 4, 6)
    assert before + second.advance() == losses
    assert all(torch.equal(*pair) for pair in zip(students[0].parameters(), students[2].parameters(), strict=True))
