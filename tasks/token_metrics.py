"""Metrics of sequences of tokens: logits (N, T, C), as the Transformers library has them, and classes (N, T).

A position whose target is -100 (padding, or the later pieces of a word) counts nowhere. Each metric is over all
counted tokens of a split, so long sequences weigh more than short ones; standard errors are over sequences, because
tokens of one sequence depend on each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kneepoint.tasks.batches import main_output
from kneepoint.tasks.class_axis import IGNORED
from kneepoint.tasks.class_metrics import class_counts, macro_f1_of_counts
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import of_sums


def token_logits(outputs: Any, targets: Any) -> Tensor:
    """The main output, as logits of tokens.

    Raises:
        TaskError: It has not the shape (N, T, C) of targets (N, T), or there are as many tokens as classes, which
            leaves open what is what.
    """
    logits = main_output(outputs)
    shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
    if logits.dim() != 3 or logits.shape[:2] != shape:
        raise TaskError(
            f"a metric or loss of tokens needs outputs of shape (N, T, C) and class indices of shape (N, T), got "
            f"{tuple(logits.shape)} and {shape}"
        )
    if logits.shape[1] == logits.shape[2]:
        raise TaskError(
            f"with {logits.shape[1]} tokens a sequence and as many classes nobody knows which axis of the outputs "
            f"{tuple(logits.shape)} holds the classes: pad or cut the sequences to another length"
        )
    return logits


def next_tokens(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Logits (N, T - 1, C) and the tokens (N, T - 1) they predict, where targets (N, T) are the inputs themselves."""
    logits = token_logits(outputs, targets)
    return logits[:, :-1], targets[:, 1:]


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of every token in nats, 0 where the target is -100; shape (N, T)."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def _right_and_counted(outputs: Any, targets: Tensor) -> Tensor:
    right = token_logits(outputs, targets).argmax(dim=-1) == targets
    return torch.stack([right.sum(dim=1), (targets != IGNORED).sum(dim=1)], dim=1)


def _loss_and_counted(outputs: Any, targets: Tensor) -> Tensor:
    return _summed_losses(token_logits(outputs, targets), targets)


def _next_loss_and_counted(outputs: Any, targets: Tensor) -> Tensor:
    return _summed_losses(*next_tokens(outputs, targets))


def _summed_losses(logits: Tensor, targets: Tensor) -> Tensor:
    losses = token_losses(logits, targets).double().sum(dim=1)
    return torch.stack([losses, (targets != IGNORED).sum(dim=1).double()], dim=1)


def _token_counts(outputs: Any, targets: Tensor) -> Tensor:
    logits = token_logits(outputs, targets)
    return class_counts(logits.argmax(dim=-1), targets, logits.shape[-1])


def _ratio(sums: Tensor) -> Tensor:
    return sums[0] / _counted(sums[1])


def _perplexity(sums: Tensor) -> Tensor:
    return _ratio(sums).exp()


def _counted(tokens: Tensor) -> Tensor:
    if not bool(tokens > 0):
        raise TaskError(f"a metric of tokens needs a target that is not {IGNORED}, got none in all sequences")
    return tokens


token_accuracy = of_sums(_right_and_counted, _ratio, "token_accuracy", "maximize", 1.0)
"""The share of tokens whose top-1 prediction is right, in [0, 1], higher is better."""

token_macro_f1 = of_sums(_token_counts, macro_f1_of_counts, "token_macro_f1", "maximize", 1.0)
"""The mean of the token classes' F1, in [0, 1], higher is better; classes that never occur are left out."""

perplexity = of_sums(_loss_and_counted, _perplexity, "perplexity", "minimize", 1.0)
"""The exponential of the mean cross-entropy of a token, at least 1, lower is better; targets are shifted already.

It is no mean over samples, so candidates are not raced by it. For targets that equal the inputs, as Transformers' own
language models take them, see ``next_token_perplexity``."""

next_token_perplexity = of_sums(_next_loss_and_counted, _perplexity, "perplexity", "minimize", 1.0)
"""The perplexity where targets are the inputs themselves: the logits at a position are held against the next token."""
