"""Batches and the tensors in them.

What goes into a network, comes out of it, or is its target is everywhere a tensor, or tuples and dicts of tensors, with
the samples along dimension 0. Named tuples and mappings that are dataclasses (the outputs of the Transformers library)
stay what they are; entries that are None stay None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.errors import TaskError


def leaves(tensors: Any) -> list[Tensor]:
    """The tensors of a tensor, tuple, list or dict, and of those in it, in order.

    Raises:
        TaskError: There is anything else in it.
    """
    if isinstance(tensors, Tensor):
        return [tensors]
    if not _is_structure(tensors):
        raise TaskError(f"expected a tensor, or a tuple or dict of tensors, found {type(tensors).__name__}")
    return [leaf for part in _parts(tensors) if part is not None for leaf in leaves(part)]


def rebuild(like: Any, parts: Iterable[Tensor]) -> Any:
    """The tensors ``parts`` in the structure of ``like``, where lists become tuples and plain mappings dicts.

    Raises:
        ValueError: There are more or fewer of them than ``like`` has.
    """
    given, places = list(parts), len(leaves(like))
    if len(given) != places:
        raise ValueError(f"a structure of {places} tensors cannot be made of {len(given)}")
    return _rebuilt(like, iter(given))


def main_output(outputs: Any) -> Tensor:
    """The tensor that a classifier is judged by: the outputs themselves, their only tensor, or the one named logits.

    Raises:
        TaskError: There are several, and none has that name.
    """
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else None
    if isinstance(logits, Tensor):
        return logits
    found = leaves(outputs)
    if len(found) != 1:
        raise TaskError(
            f"the outputs hold {len(found)} tensors, none of them named logits: give Task a metric and a loss that "
            "pick the right one"
        )
    return found[0]


def pick(tensors: Any, key: str | int, what: str) -> Any:
    """One of several outputs or targets, by its key in a mapping or its position in a sequence.

    Raises:
        TaskError: There is none; the message calls it by ``what``.
    """
    if isinstance(tensors, Mapping):
        if key in tensors:
            return tensors[key]
        raise TaskError(f"there is no {what} {key!r} among the {what}s {sorted(map(str, tensors))}")
    if isinstance(tensors, Sequence) and isinstance(key, int):
        if -len(tensors) <= key < len(tensors):
            return tensors[key]
        raise TaskError(f"there is no {what} {key} among {len(tensors)} {what}s")
    raise TaskError(
        f"{what} {key!r} is picked from a tuple by position or from a dict by key, got {type(tensors).__name__}"
    )


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


def _is_structure(tensors: Any) -> bool:
    return isinstance(tensors, Mapping) or (isinstance(tensors, Sequence) and not isinstance(tensors, str))


def _parts(tensors: Any) -> list[Any]:
    return list(tensors.values()) if isinstance(tensors, Mapping) else list(tensors)


def _rebuilt(like: Any, parts: Iterator[Tensor]) -> Any:
    if like is None:
        return None
    if isinstance(like, Tensor):
        return next(parts)
    values = [_rebuilt(part, parts) for part in _parts(like)]
    if isinstance(like, Mapping):
        made = dict(zip(like, values, strict=True))
        return type(like)(**made) if is_dataclass(like) else made
    return type(like)(*values) if hasattr(like, "_fields") else tuple(values)
