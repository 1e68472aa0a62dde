"""The teacher's outputs for the training samples, computed once and found again by what the sample is.

All trainings of a process that learn from one task share them. The teacher runs over the data once, in one order, so
that what a training reads does not depend on which trainings were before it. Samples are recognized by a digest of
their bytes, so that loaders may shuffle and batch them anew. Data that is augmented anew at every pass never recurs:
that is noticed before the teacher runs, and then nothing is kept.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sized
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kneepoint.tasks.batches import as_pair, leaves, rebuild
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import ORDER_SEED, seeded
from kneepoint.tasks.task import Task

FEWEST_PASSES = 2
"""Over the data that a training must make for anything to recur in it."""


def ask(task: Task, inputs: Any) -> Any:
    """The teacher's outputs, in eval mode, float32 and without gradients; its own mode is restored."""
    kind = leaves(inputs)[0].device.type
    with torch.no_grad(), torch.autocast(kind, enabled=False), module_mode(task.model, training=False):
        return task.call(task.model, inputs)


class TeacherOutputs:
    """What a teacher said about the samples of its task's training data.

    Args:
        task: Gives the teacher and the data.
        most_bytes: Of outputs to keep; samples beyond them are computed whenever they are asked for.
    """

    def __init__(self, task: Task, most_bytes: int) -> None:
        self._places: dict[bytes, tuple[int, int]] = {}
        self._batches: list[list[Tensor]] = []
        self._like: Any = None
        if recurs(task):
            self._fill(task, most_bytes)

    def __len__(self) -> int:
        return len(self._places)

    def of(self, task: Task, inputs: Any) -> Any:
        """The outputs for a batch: those that are kept, and the teacher's answer where one of them is not.

        Kept outputs were computed in another batch, which may change their last bits.
        """
        places = [self._places.get(digest) for digest in digests(inputs)] if self._places else [None]
        known = [place for place in places if place is not None]
        if len(known) < len(places):
            return ask(task, inputs)
        columns = zip(*([column[row] for column in self._batches[batch]] for batch, row in known), strict=True)
        return rebuild(self._like, [torch.stack(rows) for rows in columns])

    def _fill(self, task: Task, most_bytes: int) -> None:
        used = 0
        with seeded(ORDER_SEED):
            for inputs in _inputs(task):
                outputs = ask(task, inputs)
                columns = leaves(outputs)
                used += sum(column.nbytes for column in columns)
                if used > most_bytes:
                    return
                self._like = outputs
                for row, digest in enumerate(digests(inputs)):
                    self._places.setdefault(digest, (len(self._batches), row))
                self._batches.append(columns)


_KEPT: WeakKeyDictionary[Task, dict[int, tuple[tuple[int, ...], TeacherOutputs]]] = WeakKeyDictionary()


def teacher_outputs(task: Task, most_bytes: int) -> TeacherOutputs:
    """The outputs of the task's teacher, computed at the first call; anew where the teacher has changed since."""
    state = _state(task.model)
    kept = _KEPT.setdefault(task, {})
    if most_bytes not in kept or kept[most_bytes][0] != state:
        kept[most_bytes] = (state, TeacherOutputs(task, most_bytes))
    return kept[most_bytes][1]


def may_recur(task: Task, batches: int) -> bool:
    """Whether a training of so many batches makes several passes over data whose length is known."""
    return isinstance(task.train, Sized) and batches >= FEWEST_PASSES * len(task.train)


def recurs(task: Task) -> bool:
    """Whether samples of one pass over the training data come again in the next."""
    with seeded(ORDER_SEED):
        first = {digest for inputs in _inputs(task) for digest in digests(inputs)}
        again = {digest for inputs in itertools.islice(_inputs(task), 1) for digest in digests(inputs)}
    return not first.isdisjoint(again)


def digests(inputs: Any) -> list[bytes]:
    """For every sample 16 bytes that tell it from any other: BLAKE2 over its tensors, their types and shapes."""
    columns = [leaf.detach().cpu().contiguous() for leaf in leaves(inputs)]
    kinds = [f"{column.dtype}{tuple(column.shape[1:])}".encode() for column in columns]
    rows = [column.reshape(len(column), -1).view(torch.uint8).numpy() for column in columns]
    found = []
    for index in range(len(rows[0])):
        digest = hashlib.blake2b(digest_size=16)
        for kind, row in zip(kinds, rows, strict=True):
            digest.update(kind)
            digest.update(row[index].tobytes())
        found.append(digest.digest())
    return found


def _inputs(task: Task) -> Iterator[Any]:
    return (as_pair(batch, "train")[0] for batch in task.train)


def _state(model: nn.Module) -> tuple[int, ...]:
    """Changes whenever a parameter or buffer is written to or replaced."""
    tensors = [*model.parameters(), *model.buffers()]
    return tuple(
        number for tensor in tensors for number in (id(tensor), 0 if tensor.is_inference() else tensor._version)
    )
