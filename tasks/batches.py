"""Batches and the tensors in them.

What goes into a network, comes out of it, or is its target is everywhere a tensor, or a tuple or dict of tensors, with
the samples along dimension 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.errors import TaskError


def leaves(tensors: Any) -> list[Tensor]:
    """The tensors of a tensor, tuple, list or dict, in order.

    Raises:
        TaskError: There is anything else in it.
    """
    if isinstance(tensors, Tensor):
        return [tensors]
    if isinstance(tensors, Mapping):
        parts = list(tensors.values())
    elif isinstance(tensors, Sequence) and not isinstance(tensors, str):
        parts = list(tensors)
    else:
        parts = [tensors]
    for part in parts:
        if not isinstance(part, Tensor):
            raise TaskError(f"expected a tensor, or a tuple or dict of tensors, found {type(part).__name__}")
    return parts


def rebuild(like: Any, parts: Iterable[Tensor]) -> Any:
    """The tensors ``parts`` in the structure of ``like``, where lists become tuples and mappings dicts."""
    if isinstance(like, Tensor):
        return next(iter(parts))
    if isinstance(like, Mapping):
        return dict(zip(like, parts, strict=True))
    return tuple(parts)


def transform(function: Callable[[Tensor], Tensor], tensors: Any) -> Any:
    """``function`` of every tensor, in the same structure."""
    return rebuild(tensors, [function(leaf) for leaf in leaves(tensors)])


def concatenate(batches: Sequence[Any]) -> Any:
    """The batches joined along dimension 0, in the structure of the first.

    Raises:
        TaskError: Their structures or their shapes after dimension 0 differ.
    """
    columns = [leaves(batch) for batch in batches]
    if len({len(column) for column in columns}) > 1:
        raise TaskError("batches differ in their number of tensors: every batch must have one structure")
    try:
        return rebuild(batches[0], [torch.cat(parts) for parts in zip(*columns, strict=True)])
    except RuntimeError as error:
        shapes = sorted({tuple(leaf.shape[1:]) for column in columns for leaf in column})
        raise TaskError(
            f"batches cannot be joined along dimension 0, their samples have shapes {shapes}: pad them to one shape"
        ) from error


def as_pair(batch: Any, split: str) -> tuple[Any, Any]:
    """``batch`` as (inputs, targets).

    Raises:
        TaskError: It is no tuple or list of two.
    """
    if not isinstance(batch, tuple | list):
        raise TaskError(f"{split}: every batch must be an (inputs, targets) pair, got {type(batch).__name__}")
    if len(batch) != 2:
        raise TaskError(f"{split}: every batch must be an (inputs, targets) pair, got {len(batch)} elements")
    return batch[0], batch[1]
