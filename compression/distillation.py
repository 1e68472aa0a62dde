"""Learning from the teacher: the loss of Hinton et al. (2015), for students and for recovery after compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.tasks.batches import leaves
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import BatchLoss, Progress, Training


@dataclass(frozen=True)
class Distillation:
    """How a network is trained from the teacher.

    Attributes:
        steps: Optimizer steps.
        learning_rate: The highest one of the schedule.
        temperature: Softens both logits; above 0.
        alpha: Share of the teacher's signal in the loss, in [0, 1]; the rest is the task's own loss.
        weight_decay: Decoupled weight decay.
    """

    steps: int
    learning_rate: float
    temperature: float = 2.0
    alpha: float = 0.7
    weight_decay: float = 1e-4


STUDENT_TRAINING = Distillation(steps=600, learning_rate=6e-3)
RECOVERY = Distillation(steps=150, learning_rate=1e-3, weight_decay=0.0)


def distill(
    task: Task, module: nn.Module, settings: Distillation, seed: int, on_progress: Progress | None = None
) -> list[float]:
    """Train ``module`` in place to imitate the task's model on its training data, from beginning to end.

    Args:
        task: Its model is the teacher, its ``train`` the data, its ``loss`` the hard part of the loss.
        module: Any module with the teacher's inputs and outputs.
        settings: Steps, rates, temperature and alpha.
        seed: Governs batches and augmentation.
        on_progress: Called after every step.

    Returns:
        The loss of every step.

    Raises:
        JobFailed: If the loss becomes non-finite.
    """
    return begin_distillation(task, module, settings, seed).advance(on_progress=on_progress)


def begin_distillation(task: Task, module: nn.Module, settings: Distillation, seed: int) -> Training:
    """What :func:`distill` runs to its end: it can stop at any step, be stored, and go on elsewhere.

    The teacher is in eval mode while it is asked, and left in the mode it had.
    """
    return Training(
        module,
        task.train,
        distillation_loss(task, settings),
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=seed,
    )


def distillation_loss(task: Task, settings: Distillation) -> BatchLoss:
    """The loss alpha x soft + (1 - alpha) x hard.

    The soft part is T^2 x KL(softmax(teacher / T) || softmax(student / T)) where the targets are class indices (Hinton,
    Vinyals & Dean 2015, section 2), and the mean squared error between the outputs otherwise.
    """

    def loss(module: nn.Module, inputs: Any, targets: Any) -> Tensor:
        outputs = task.call(module, inputs)
        hard = task.loss(outputs, targets)
        if settings.alpha == 0.0:
            return hard
        with torch.no_grad(), module_mode(task.model, training=False):
            taught = task.call(task.model, inputs)
        soft = soft_loss(outputs, taught, targets, settings.temperature)
        return settings.alpha * soft + (1.0 - settings.alpha) * hard

    return loss


def soft_loss(outputs: Any, taught: Any, targets: Any, temperature: float) -> Tensor:
    """How far ``outputs`` are from the teacher's, averaged over samples; see :func:`distillation_loss`."""
    pairs = list(zip(leaves(outputs), leaves(taught), strict=True))
    if not is_classification(outputs, targets):
        return torch.stack([F.mse_loss(student, teacher) for student, teacher in pairs]).mean()
    student, teacher = pairs[0]
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1).mean()
    return divergence * temperature**2


def is_classification(outputs: Any, targets: Any) -> bool:
    """Whether targets are the indices of classes, of which ``outputs`` are the logits along axis 1."""
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and not targets.is_floating_point()
        and targets.shape == (outputs.shape[0], *outputs.shape[2:])
    )
