from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kneepoint.compression.soft_targets import gap_of, heads_of, soft_loss

CLASSES = torch.tensor([0, 1, 2, 0, 1])


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


def test_tokens_are_classified_along_the_last_axis_and_padding_does_not_count() -> None:
    student, teacher = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    targets = torch.tensor([[0, 1, 2, -100, -100], [2, 2, -100, 1, 0]])
    counted = targets != -100
    expected = soft_loss(student[counted], teacher[counted], targets[counted], 2.0)
    torch.testing.assert_close(soft_loss(student, teacher, targets, 2.0), expected)
    along_axis_1 = soft_loss(student.transpose(1, 2), teacher.transpose(1, 2), targets, 2.0)
    torch.testing.assert_close(along_axis_1, expected)
    student[~counted] += 100.0
    torch.testing.assert_close(soft_loss(student, teacher, targets, 2.0), expected)


def test_nothing_counted_is_no_loss_and_no_nan() -> None:
    student = torch.randn(2, 5, 3, requires_grad=True)
    loss = soft_loss(student, torch.randn(2, 5, 3), torch.full((2, 5), -100), 2.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert bool((gradient == 0).all())


def test_an_entry_called_logits_is_what_counts() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    bare = soft_loss(student, teacher, CLASSES, 2.0)
    hidden = torch.randn(5, 7)
    assert (
        soft_loss({"hidden": hidden, "logits": student}, {"hidden": -hidden, "logits": teacher}, CLASSES, 2.0) == bare
    )
    assert soft_loss({"logits": student}, {"logits": teacher}, {"logits": CLASSES}, 2.0) == bare
    assert soft_loss(student, {"hidden": hidden, "logits": teacher}, CLASSES, 2.0) == bare
    assert soft_loss((student,), {"logits": teacher}, CLASSES, 2.0) == bare


@pytest.mark.parametrize("form", [tuple, list, lambda pair: dict(zip("ab", pair, strict=True))])
def test_every_output_has_its_own_target(form: Any) -> None:
    classes, numbers = (torch.randn(5, 3), torch.randn(5, 3)), (torch.randn(5, 2), torch.randn(5, 2))
    outputs, taught = (form([classes[side], numbers[side]]) for side in (0, 1))
    found = heads_of(outputs, taught, form([CLASSES, torch.randn(5, 2)]))
    assert [head.classes for head in found] == [True, False]
    expected = (soft_loss(*classes, CLASSES, 2.0) + F.mse_loss(*numbers)) / 2
    torch.testing.assert_close(soft_loss(outputs, taught, form([CLASSES, torch.randn(5, 2)]), 2.0), expected)


def test_outputs_that_share_a_target_take_it_where_it_fits() -> None:
    outputs = (torch.randn(5, 3), None, torch.randn(5, 7, 2))
    assert [head.classes for head in heads_of(outputs, outputs, CLASSES)] == [True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gap_is_between_none_and_one(dtype: torch.dtype) -> None:
    teacher = 20 * F.one_hot(CLASSES, 3).to(dtype)

    def gap(student: Tensor, targets: Tensor) -> float:
        (head,) = heads_of(student, teacher, targets)
        return float(gap_of(head))

    for targets in (CLASSES, torch.randn(5, 3)):
        assert gap(teacher, targets) == 0
        assert gap(-teacher, targets) == pytest.approx(1, abs=1e-3)
        assert 0 < gap(teacher + 1 + teacher.roll(1) / 4, targets) <= 1
