"""What transposes, squeezes and reshapes do to axes, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.hardware_models.permutations import (
    channels_first,
    channels_last,
    inverse,
    permuted,
    removed_axes,
    unit_order,
    with_axes,
    without_axes,
)

PERMUTATIONS = st.integers(1, 5).flatmap(lambda rank: st.permutations(range(rank))).map(tuple)


def numbered(rank: int) -> tuple[int, ...]:
    """A shape whose axes all differ."""
    return tuple(range(2, rank + 2))


@given(PERMUTATIONS)
def test_a_transpose_and_its_inverse_cancel(axes: tuple[int, ...]) -> None:
    shape = numbered(len(axes))
    assert permuted(shape, axes) == np.zeros(shape).transpose(axes).shape
    assert permuted(permuted(shape, axes), inverse(axes)) == shape


@given(PERMUTATIONS, st.data())
def test_a_transpose_moves_behind_a_squeeze(axes: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(axes)
    gone = tuple(sorted(data.draw(st.sets(st.integers(0, rank - 1)))))  # axes of the source
    source = np.zeros(tuple(1 if axis in gone else size for axis, size in enumerate(numbered(rank))))
    behind = source.transpose(axes).squeeze(tuple(position for position, axis in enumerate(axes) if axis in gone))
    assert permuted(source.squeeze(gone).shape, without_axes(axes, gone)) == behind.shape


@given(PERMUTATIONS, st.data())
def test_a_transpose_moves_behind_an_unsqueeze(axes: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(axes) + 2
    added = tuple(sorted(data.draw(st.sets(st.integers(0, rank - 1), min_size=2, max_size=2))))
    source = np.zeros(numbered(len(axes)))
    behind = np.expand_dims(source.transpose(axes), added)
    assert permuted(np.expand_dims(source, added).shape, with_axes(axes, added)) == behind.shape


@pytest.mark.parametrize(
    ("before", "after", "axes"),
    [((2, 1, 3), (2, 3), (1,)), ((1, 1, 4), (1, 4), (1,)), ((2, 3, 1, 1), (2, 3), (2, 3)), ((2, 3), (2, 3), ())],
)
def test_axes_that_a_squeeze_removes(before: tuple[int, ...], after: tuple[int, ...], axes: tuple[int, ...]) -> None:
    removed = removed_axes(before, after)
    assert len(removed) == len(axes)
    assert np.zeros(before).squeeze(removed).shape == after


@pytest.mark.parametrize(
    ("before", "after", "order"),
    [
        ((5, 6, 4, 1), (5, 1, 6, 4), (0, 3, 1, 2)),
        ((5, 1, 6, 4), (5, 6, 4, 1), (0, 2, 3, 1)),
        ((5, 6, 4, 1), (5, 4, 6, 1), ()),
        ((5, 6, 4), (5, 4, 6), ()),
        ((5, 6), (5, 6), (0, 1)),
    ],
)
def test_a_reshape_that_moves_units_alone_is_a_transpose(
    before: tuple[int, ...], after: tuple[int, ...], order: tuple[int, ...]
) -> None:
    assert unit_order(before, after) == order


def test_channels_move_between_the_second_and_the_last_axis() -> None:
    assert permuted((5, 3, 7, 9), channels_last(4)) == (5, 7, 9, 3)
    assert inverse(channels_last(4)) == channels_first(4)
