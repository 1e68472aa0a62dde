"""What a student is told by its teacher's outputs: the loss between the two, output by output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kneepoint.tasks.batches import leaves, main_output
from kneepoint.tasks.class_axis import class_axis


@dataclass(frozen=True)
class Head:
    """One output of the student with the teacher's, and where its classes lie.

    Attributes:
        student: What the student says; classes along the last axis, if there are any.
        teacher: What the teacher says, of the same shape.
        classes: Whether the two are logits of classes, which the targets are indices of.
        counted: Of the shape without the classes: False where a target is no class, as padding is; None where all are.
    """

    student: Tensor
    teacher: Tensor
    classes: bool
    counted: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values without the classes' axis, over the positions that count; 0 where there are none."""
        if self.counted is None:
            return values.mean()
        return torch.where(self.counted, values, 0.0).sum() / self.counted.sum().clamp(min=1)


def heads_of(outputs: Any, taught: Any, targets: Any) -> list[Head]:
    """The outputs of student and teacher side by side, each with its own target.

    A structure with an entry ``logits`` is that entry. Where targets are a structure, too, an output's target is that
    of its key or position; otherwise the targets are those of every output whose shape fits.
    """
    return [_head(student, teacher, target) for student, teacher, target in _pairs(outputs, taught, targets)]


def soft_loss(outputs: Any, taught: Any, targets: Any, temperature: float) -> Tensor:
    """How far ``outputs`` are from the teacher's: the mean of :func:`head_loss` over the outputs.

    Args:
        outputs: Of the student: a tensor, tuple or dict; logits (N, C, ...), or (N, T, C) for tokens.
        taught: Of the teacher, of the same structure.
        targets: Class indices (N, ...) or (N, T), those that are no class (-100) do not count; or anything else.
        temperature: Softens logits of classes.
    """
    return loss_of_heads(heads_of(outputs, taught, targets), temperature)


def loss_of_heads(heads: Sequence[Head], temperature: float) -> Tensor:
    """The mean of :func:`head_loss` over ``heads``."""
    values = [head_loss(head, temperature) for head in heads]
    return values[0] if len(values) == 1 else torch.stack(values).mean()


def head_loss(head: Head, temperature: float) -> Tensor:
    """T^2 x KL(softmax(teacher / T) || softmax(student / T)) for classes, the mean squared error otherwise.

    Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """
    if not head.classes:
        return F.mse_loss(head.student, head.teacher)
    log_student = F.log_softmax(head.student / temperature, dim=-1)
    log_teacher = F.log_softmax(head.teacher / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)
    return head.mean(divergence) * temperature**2


def gap_of(head: Head) -> Tensor:
    """How far the student is from its teacher, from 0 (alike) to 1, without a gradient.

    For classes the total variation distance of their distributions, otherwise the squared error over the variance of
    what the teacher says.
    """
    student, teacher = head.student.detach(), head.teacher
    if head.classes:
        return head.mean((student.softmax(-1) - teacher.softmax(-1)).abs().sum(-1) / 2)
    spread = (teacher - teacher.mean(0, keepdim=True)).square().mean()
    return ((student - teacher).square().mean() / spread.clamp(min=1e-12)).clamp(max=1.0)


def _head(student: Tensor, teacher: Tensor, targets: Any) -> Head:
    student, teacher = student.float(), teacher.float()  # of autocast, too
    axis = class_axis(student, targets)
    if axis is None:
        return Head(student, teacher, classes=False)
    counted = (targets >= 0) & (targets < student.shape[axis])
    student, teacher = student.movedim(axis, -1), teacher.movedim(axis, -1)
    return Head(student, teacher, classes=True, counted=None if bool(counted.all()) else counted)


def _pairs(outputs: Any, taught: Any, targets: Any) -> Iterator[tuple[Tensor, Tensor, Any]]:
    if isinstance(outputs, Tensor):
        yield outputs, main_output(taught), _only(targets)
    elif isinstance(outputs, Mapping):
        yield from _named_pairs(outputs, taught, targets)
    else:
        own = (
            list(targets)
            if isinstance(targets, Sequence) and len(targets) == len(outputs)
            else [targets] * len(outputs)
        )
        given = taught.values() if isinstance(taught, Mapping) else taught
        for student, teacher, target in zip(outputs, given, own, strict=True):
            yield from () if student is None else _pairs(student, teacher, target)


def _named_pairs(outputs: Mapping[str, Any], taught: Any, targets: Any) -> Iterator[tuple[Tensor, Tensor, Any]]:
    logits = outputs.get("logits")
    if isinstance(logits, Tensor):
        own = targets.get("logits", targets) if isinstance(targets, Mapping) else targets
        yield from _pairs(logits, taught["logits"], own)
        return
    for key, student in outputs.items():
        own = targets.get(key, targets) if isinstance(targets, Mapping) else targets
        yield from () if student is None else _pairs(student, taught[key], own)


def _only(targets: Any) -> Any:
    """The tensor that ``targets`` are, or the only one in them."""
    if isinstance(targets, Mapping | Sequence) and len(leaves(targets)) == 1:
        return leaves(targets)[0]
    return targets
