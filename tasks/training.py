"""One training loop for teachers, students and recovery."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor, nn

from kneepoint.tasks.errors import JobFailed, TaskError
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import seeded

BatchLoss = Callable[[nn.Module, Any, Any], Tensor]
"""``loss(module, inputs, targets) -> scalar tensor``."""

Progress = Callable[[int, int, float], None]
"""``on_progress(steps done, steps in all, loss of the last step)``."""

WARM_UP = 0.15  # share of the steps in which the learning rate rises


def fit(
    module: nn.Module,
    batches: Iterable[Any],
    loss: BatchLoss,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-3,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> list[float]:
    """Trains ``module`` in place with AdamW under a linear warm-up and a cosine decay to zero.

    The result depends on the arguments and the number of threads alone. The mode of the module is restored.

    Args:
        module: The network; its parameters with ``requires_grad`` are trained, in train mode.
        batches: A re-iterable of (inputs, targets) pairs; iterated again whenever it ends.
        loss: Maps the module and a batch to a scalar, lower is better.
        steps: The number of optimizer steps; give this or ``epochs``.
        epochs: The number of passes over ``batches``, whose length is counted where it has none.
        learning_rate: The highest learning rate, reached after the warm-up.
        weight_decay: Decoupled weight decay of the parameters with two or more dimensions; norms and biases have none.
        seed: Seeds the global generators while training; they are restored afterwards.
        on_progress: Called after every step.

    Returns:
        The loss of every step.

    Raises:
        TaskError: The arguments contradict each other, there is nothing to train or nothing to train on.
        JobFailed: The loss became infinite or NaN.
    """
    with seeded(seed), module_mode(module, training=True):
        total = _count_steps(batches, steps, epochs)
        optimizer = _optimizer(module, learning_rate, weight_decay)
        losses: list[float] = []
        for step, (inputs, targets) in zip(range(total), _cycle(batches), strict=False):
            rate = learning_rate * schedule(step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            value = loss(module, inputs, targets)
            losses.append(_finite(float(value.detach()), step, total, rate))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(value)
            optimizer.step()
            if on_progress is not None:
                on_progress(step + 1, total, losses[-1])
    return losses


def schedule(step: int, total: int) -> float:
    """The learning rate of a step over the highest one: a linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, round(WARM_UP * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up + 1) / (total - warm_up + 1)))


def _optimizer(module: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise TaskError(f"nothing to train: {type(module).__name__} has no parameter with requires_grad")
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def _count_steps(batches: Iterable[Any], steps: int | None, epochs: int | None) -> int:
    if (steps is None) == (epochs is None):
        raise TaskError(f"give either steps or epochs, got steps={steps} and epochs={epochs}")
    if steps is None:
        length = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
        steps = (epochs or 0) * length
    if steps < 1:
        raise TaskError(f"training needs at least one step, got {steps} (steps or epochs below 1, or no batches)")
    return steps


def _cycle(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    while True:
        empty = True
        for inputs, targets in batches:
            empty = False
            yield inputs, targets
        if empty:
            raise TaskError("training ran out of batches: they must be re-iterable, not an iterator, and not empty")


def _finite(value: float, step: int, total: int, rate: float) -> float:
    if not math.isfinite(value):
        raise JobFailed(
            f"training diverged: the loss is {value} at step {step + 1} of {total} with learning rate {rate:.2g}: "
            "lower the learning rate or look for non-finite values in the data"
        )
    return value
