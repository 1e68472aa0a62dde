"""Losses to train with: of classes, of tokens, and of several outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from kneepoint.tasks.batches import main_output, pick
from kneepoint.tasks.class_axis import class_axis
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.token_metrics import next_tokens, token_logits

Key = str | int


def classification_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits, alone or in a structure, and classes; a scalar.

    Args:
        outputs: Logits (N, C, ...), or (N, T, C) for tokens; alone, or as the entry ``logits``.
        targets: Classes (N, ...) or (N, T); positions of -100 do not count.
    """
    logits = main_output(outputs)
    return F.cross_entropy(logits.movedim(-1, 1) if class_axis(logits, targets) == -1 else logits, targets)


def token_cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a token in nats, of logits (N, T, C) and classes (N, T); positions of -100 do not count.

    Raises:
        TaskError: The shapes do not fit.
    """
    return F.cross_entropy(token_logits(outputs, targets).flatten(0, 1), targets.flatten())


def next_token_cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the next token in nats, where targets (N, T) are the inputs themselves.

    Logits (N, T, C) of a position are held against the token after it; positions of -100 do not count.

    Raises:
        TaskError: The shapes do not fit.
    """
    logits, following = next_tokens(outputs, targets)
    return F.cross_entropy(logits.flatten(0, 1), following.flatten())


def by_output(
    losses: Mapping[Key, Callable[[Any, Any], Tensor]], weights: Mapping[Key, float] | None = None
) -> Callable[[Any, Any], Tensor]:
    """The weighted sum of losses of several outputs, each with the target of the same key or position.

    Args:
        losses: By the output's key, or its position in a tuple: ``f(output, target) -> scalar``.
        weights: By output; 1 for those it does not name.

    Returns:
        A picklable ``f(outputs, targets) -> scalar``; it raises a TaskError where an output or target is missing.

    Raises:
        TaskError: There are no losses, or weights name other outputs.
    """
    given = dict(weights or {})
    if not losses or not given.keys() <= losses.keys():
        raise TaskError(f"losses by output need a loss for every weight, got losses of {list(losses)}, weights {given}")
    return _ByOutput(tuple((key, given.get(key, 1.0), loss) for key, loss in losses.items()))


@dataclass(frozen=True)
class _ByOutput:
    """An object and not a closure so that it pickles."""

    parts: tuple[tuple[Key, float, Callable[[Any, Any], Tensor]], ...]

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        values = [
            weight * loss(pick(outputs, key, "output"), pick(targets, key, "target"))
            for key, weight, loss in self.parts
        ]
        total: Tensor = sum(values[1:], start=values[0])
        return total
