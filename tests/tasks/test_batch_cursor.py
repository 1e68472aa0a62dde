from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from kneepoint.tasks.batch_cursor import BatchCursor
from kneepoint.tasks.errors import TaskError


class Lazy:
    """Draws while a pass is under way, from all three generators."""

    def __iter__(self) -> Iterator[tuple[float, float]]:
        for _ in range(3):
            yield random.random(), float(np.random.rand() + torch.rand(()))  # noqa: NPY002, S311 - as users' loaders do


def shuffled() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(torch.arange(10), torch.arange(10)), batch_size=4, shuffle=True)


def some(cursor: BatchCursor, count: int) -> list[str]:
    return [str(cursor.next()) for _ in range(count)]


@pytest.mark.parametrize("batches", [Lazy(), shuffled()], ids=["lazy", "shuffled"])
def test_every_place_is_found_again(batches: Lazy) -> None:
    expected = some(BatchCursor(batches, 5), 8)
    for place in range(8):
        cursor, other = BatchCursor(batches, 5), BatchCursor(batches, 1)
        assert some(cursor, place) == expected[:place]
        other.restore(cursor.state())
        assert some(other, 8 - place) == some(cursor, 8 - place) == expected[place:]


def test_passes_differ_and_depend_on_the_seed_alone() -> None:
    first = some(BatchCursor(shuffled(), 5), 6)
    torch.rand(3)
    assert some(BatchCursor(shuffled(), 5), 6) == first
    assert first[:3] != first[3:]
    assert some(BatchCursor(shuffled(), 6), 6) != first


def test_what_is_drawn_between_two_batches_does_not_change_them() -> None:
    expected = some(BatchCursor(Lazy(), 5), 6)
    cursor, found = BatchCursor(Lazy(), 5), []
    for number in range(6):
        found += some(cursor, 1)
        torch.rand(number + 1)
    assert found == expected


def test_data_that_became_less_is_noticed() -> None:
    cursor, shorter = BatchCursor([(1, 1)] * 4, 0), BatchCursor([(1, 1)] * 2, 0)
    some(cursor, 3)
    shorter.restore(cursor.state())
    with pytest.raises(TaskError, match="stopped behind batch 3 of a pass that now has 2: it goes on with the data it"):
        shorter.next()


def test_no_pairs_are_refused() -> None:
    with pytest.raises(TaskError, match=r"train: every batch must be an \(inputs, targets\) pair, got Tensor"):
        BatchCursor([torch.ones(2)], 0).next()
