"""Learning from the teacher, for students and for recovery after compression.

What each part of the loss gives over plain training was measured: docs/distillation.md. What gave nothing is off by
default.
"""

from __future__ import annotations

import torch
from torch import nn

from kneepoint.compression.distillation_loss import DistillationLoss
from kneepoint.compression.distillation_settings import RECOVERY as RECOVERY  # what a caller needs beside it
from kneepoint.compression.distillation_settings import STUDENT_TRAINING as STUDENT_TRAINING
from kneepoint.compression.distillation_settings import Distillation as Distillation
from kneepoint.compression.hints import Hints
from kneepoint.compression.observing import Observed, observe_call
from kneepoint.compression.teacher_outputs import may_recur, teacher_outputs
from kneepoint.tasks.batches import leaves
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import digest_seed, seeded
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import Progress, Training

_MEGABYTE = 10**6


def distill(
    task: Task, module: nn.Module, settings: Distillation, seed: int, on_progress: Progress | None = None
) -> list[float]:
    """Train ``module`` in place to imitate the task's model on its training data, from beginning to end.

    Args:
        task: Its model is the teacher, its ``train`` the data, its ``loss`` the hard part of the loss.
        module: Any module with the teacher's inputs and outputs.
        settings: Steps, rates, and the parts of the loss.
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
        distillation_loss(task, module, settings, seed),
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=seed,
        warm_up=settings.warm_up,
        accumulation=settings.accumulation,
        precision=settings.precision,
    )


def distillation_loss(task: Task, module: nn.Module, settings: Distillation, seed: int = 0) -> DistillationLoss:
    """The loss of a training of ``module``; a teacher's outputs are kept where they are all that is asked of it."""
    hints = _matched_hints(task, module, settings, digest_seed("hints", seed))
    kept = settings.teacher_cache_mb * _MEGABYTE
    needs_teacher = settings.alpha != 0 or settings.follow_gap or settings.general_share > 0
    cached = kept > 0 and hints is None and needs_teacher and may_recur(task, settings.batches)
    return DistillationLoss(task, settings, hints, teacher_outputs(task, int(kept)) if cached else None)


def _matched_hints(task: Task, module: nn.Module, settings: Distillation, seed: int) -> Hints | None:
    """What the example input shows of both networks, matched; None where nothing is asked for, or nothing matches."""
    if settings.hidden_hints == 0 and settings.attention_hints == 0:
        return None
    hints = Hints(_observed(task, module), _observed(task, task.model), seed)
    found = (settings.hidden_hints > 0 and hints.states) or (settings.attention_hints > 0 and hints.attention)
    return hints if found else None


def _observed(task: Task, module: nn.Module) -> Observed:
    samples = len(leaves(task.example_input)[0])
    with seeded(0), torch.no_grad(), module_mode(module, training=False):
        return observe_call(lambda: task.call(module, task.example_input), module, samples)[1]
