"""Runs everything of a task once, so that what cannot be searched is refused before the search."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kneepoint.tasks.batches import as_pair, leaves
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import Score
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import ORDER_SEED, seeded

if TYPE_CHECKING:
    from kneepoint.tasks.task import Split, Task


def check_task(task: Task) -> Score:
    """The score of the task's model on the validation data, once everything has run.

    Raises:
        TaskError: One line that names the split and what is wrong with the model, its data, metric or loss.
    """
    if not isinstance(task.model, nn.Module):
        raise TaskError(f"model must be a torch.nn.Module, got {type(task.model).__name__}")
    with explained("example_input: the model raised"), module_mode(task.model, training=False), torch.no_grad():
        outputs = task.call(task.model, task.example_input)
    _require_finite(outputs, "example_input")
    splits: list[Split] = ["train", "validation"] if task.test is None else ["train", "validation", "test"]
    for split in splits:
        _check_split(task, split)
    return _checked_score(task)


def _check_split(task: Task, split: Split) -> None:
    with seeded(ORDER_SEED):
        inputs, targets = as_pair(first_batch(getattr(task, split), split), split)
    with module_mode(task.model, training=False), torch.no_grad():
        with explained(f"{split}: the model raised on the first batch"):
            outputs = task.call(task.model, inputs)
        _require_finite(outputs, split)
        with explained(f"{split}: the loss raised on the first batch"):
            loss = float(task.loss(outputs, targets))
    if not math.isfinite(loss):
        raise TaskError(f"{split}: the loss of the first batch is {loss}, it must be finite")


def _checked_score(task: Task) -> Score:
    with explained("validation: the model raised"):
        outputs, targets = task.predict(task.model)
    _require_finite(outputs, "validation")
    with explained(f"validation: the metric '{task.metric.name}' raised"):
        score = task.metric.score(outputs, targets)
    if not math.isfinite(score.value):
        raise TaskError(f"validation: the metric '{task.metric.name}' is {score.value}, it must be finite")
    return score


def _require_finite(outputs: Any, where: str) -> None:
    try:
        tensors = leaves(outputs)
    except TaskError as error:
        raise TaskError(f"{where}: in the model's outputs, {error}") from error
    for leaf in tensors:
        if leaf.is_floating_point() and not bool(leaf.isfinite().all()):
            raise TaskError(f"{where}: the model's outputs hold NaN or infinite values, they must be finite")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns any exception of a user's code into a ``TaskError`` of one line that starts with ``what``."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise TaskError(f"{what}: {type(error).__name__}: {first_line}") from error


def first_batch(loader: Any, split: str) -> Any:
    """The first batch of a loader that can be iterated again."""
    with explained(f"{split}: the loader raised"):
        if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
            received = type(loader).__name__
            raise TaskError(f"{split}: expected a re-iterable of (inputs, targets) batches, got {received}")
        iterator = iter(loader)
        if iterator is loader:
            raise TaskError(
                f"{split}: a {type(loader).__name__} can be iterated only once: give a DataLoader, a list or any "
                "other re-iterable of (inputs, targets) batches"
            )
        for batch in iterator:
            return batch
    raise TaskError(f"{split}: the loader is empty, it must give at least one (inputs, targets) batch")
