"""F1 of entities: spans of tokens tagged in the manner of CoNLL, right only as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.class_axis import IGNORED
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metric import Metric, of_sums
from kneepoint.tasks.token_metrics import token_logits

_OUTSIDE = 0


def entity_f1(labels: Sequence[str]) -> Metric:
    """The F1 of entities over all sequences of a split, in [0, 1], higher is better (Tjong Kim Sang & De Meulder 2003).

    An entity is right if its type, its first and its last token are. It begins at ``B-TYPE``, or at an ``I-TYPE`` that
    follows no token of its type, and goes on through every ``I-TYPE``. Positions whose target is -100 are left out
    before, so that the later pieces of a word neither break nor lengthen an entity.

    Args:
        labels: The name of every class in order: ``O``, and ``B-`` and ``I-`` of every type.

    Raises:
        TaskError: A label is none of these.
    """
    wrong = [label for label in labels if label != "O" and label[:2] not in ("B-", "I-")]
    if wrong or not labels:
        raise TaskError(f"labels of entities are 'O', 'B-TYPE' and 'I-TYPE', got {wrong or list(labels)}")
    types = sorted({label[2:] for label in labels if label != "O"})
    numbers = tuple(_OUTSIDE if label == "O" else 1 + types.index(label[2:]) for label in labels)
    begins = tuple(label.startswith("B-") for label in labels)
    return of_sums(_EntityCounts(numbers, begins), _f1, "entity_f1", "maximize", 1.0)


@dataclass(frozen=True)
class _EntityCounts:
    """Entities of each sequence: right, predicted and true; shape (N, 3).

    Attributes:
        types: Of each class, the number of its entity type; 0 for none.
        begins: Of each class, whether it begins an entity.
    """

    types: tuple[int, ...]
    begins: tuple[bool, ...]

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        logits = token_logits(outputs, targets)
        if logits.shape[-1] != len(self.types):
            raise TaskError(f"entity_f1 got {len(self.types)} labels, and outputs with {logits.shape[-1]} classes")
        ignored = targets == IGNORED
        order = ignored.long().argsort(dim=1, stable=True)  # counted tokens first, in their order
        beyond = ignored.gather(1, order)
        predicted = self._entities(logits.argmax(dim=-1).gather(1, order), beyond)
        true = self._entities(targets.clamp(min=0).gather(1, order), beyond)
        right = (predicted == true).all(dim=-1) & (true[..., 0] != _OUTSIDE)
        found = [right, predicted[..., 0] != _OUTSIDE, true[..., 0] != _OUTSIDE]
        return torch.stack([one.sum(dim=1) for one in found], dim=1)

    def _entities(self, classes: Tensor, beyond: Tensor) -> Tensor:
        """Type and last position of the entity that begins at each token, (0, 0) where none does; shape (N, T, 2)."""
        types = torch.tensor(self.types)[classes].masked_fill(beyond, _OUTSIDE)
        follows = torch.zeros_like(beyond)
        follows[:, 1:] = (types[:, 1:] == types[:, :-1]) & ~torch.tensor(self.begins)[classes[:, 1:]]
        starts = (types != _OUTSIDE) & ~follows
        positions = torch.arange(types.shape[1]).expand_as(types)
        ends = torch.ones_like(beyond)
        ends[:, :-1] = ~follows[:, 1:]
        # The nearest end at or after each position: a running minimum from the right.
        last = torch.where(ends, positions, types.shape[1]).flip(1).cummin(dim=1).values.flip(1)
        return torch.stack([types * starts, last * starts], dim=-1)


def _f1(counts: Tensor) -> Tensor:
    """2 right / (predicted + true), and 0 where there are no entities at all."""
    right, predicted, true = counts
    f1: Tensor = 2 * right / (predicted + true).clamp(min=1.0)
    return f1
