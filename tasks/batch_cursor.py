"""A place in endless passes over batches, which can be stored and found again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from kneepoint.tasks.batches import as_pair
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.seeding import GeneratorStates


class BatchCursor:
    """Gives the batches of a loader one after another, and those of the next pass when one ends.

    The loader draws from generators of its own: what is computed between two batches does not change the next. A stored
    place is found again by beginning its pass from the same random numbers and skipping the batches that were seen.

    Args:
        batches: A re-iterable of (inputs, targets) pairs; its randomness comes from the global generators.
        seed: Governs that randomness.
    """

    def __init__(self, batches: Iterable[Any], seed: int) -> None:
        self._batches = batches
        self._begun = GeneratorStates.of_seed(seed)
        self._now = self._begun
        self._seen = 0
        self._pass: Iterator[Any] | None = None

    def next(self) -> tuple[Any, Any]:
        """The next inputs and targets. The global generators are left wherever the loader drove them.

        Raises:
            TaskError: If the loader is empty, an iterator that has ended, or gives no pairs.
        """
        self._now.set()
        batch = self._next()
        self._now = GeneratorStates.now()
        return as_pair(batch, "train")

    def state(self) -> dict[str, Tensor]:
        """The place, as tensors."""
        begun = {f"begun.{name}": value for name, value in self._begun.tensors().items()}
        return {**begun, "seen": torch.tensor(self._seen)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go to a place that ``state`` gave. The batches before it are skipped when the next one is asked for.

        Raises:
            KeyError: A part of it is missing.
        """
        begun = {name.removeprefix("begun."): value for name, value in state.items() if name.startswith("begun.")}
        self._begun = self._now = GeneratorStates.of_tensors(begun)
        self._seen = int(state["seen"])
        self._pass = None

    def _next(self) -> Any:
        if self._pass is None:
            self._pass = self._reopened()
        try:
            batch = next(self._pass)
        except StopIteration:
            self._begun = GeneratorStates.now()
            self._pass = iter(self._batches)
            batch = self._first(self._pass)
        self._seen += 1
        return batch

    def _reopened(self) -> Iterator[Any]:
        """The pass that began at ``_begun``, behind the batches that were seen."""
        batches = iter(self._batches)
        for number in range(self._seen):
            if next(batches, None) is None:
                raise TaskError(
                    f"training stopped behind batch {self._seen} of a pass that now has {number}: it goes on with the "
                    "data it began with; begin again, or give that data"
                )
        return batches

    def _first(self, batches: Iterator[Any]) -> Any:
        self._seen = 0
        try:
            return next(batches)
        except StopIteration:
            raise TaskError(
                "training ran out of batches: they must be re-iterable, not an iterator, and not empty"
            ) from None
