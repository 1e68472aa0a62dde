"""Arithmetic on the axes of tensors: what a transpose, a squeeze or a reshape does to them."""

from __future__ import annotations

Axes = tuple[int, ...]
_USED = -1


def inverse(axes: Axes) -> Axes:
    """The permutation that undoes one."""
    found = [0] * len(axes)
    for position, axis in enumerate(axes):
        found[axis] = position
    return tuple(found)


def permuted(shape: Axes, axes: Axes) -> Axes:
    """The shape of a transposed tensor."""
    return tuple(shape[axis] for axis in axes)


def channels_first(rank: int) -> Axes:
    """The permutation that moves channels from the last axis to the second."""
    return (0, rank - 1, *range(1, rank - 1))


def channels_last(rank: int) -> Axes:
    """The permutation that moves channels from the second axis to the last."""
    return (0, *range(2, rank), 1)


def without_axes(axes: Axes, gone: Axes) -> Axes:
    """The permutation of the axes that are left when those of the source are removed."""
    kept = [axis for axis in range(len(axes)) if axis not in gone]
    return tuple(kept.index(axis) for axis in axes if axis not in gone)


def with_axes(axes: Axes, added: Axes) -> Axes:
    """The permutation with axes of one element added, which stay where they are."""
    rank = len(axes) + len(added)
    places = [axis for axis in range(rank) if axis not in added]
    rest = iter(axes)
    return tuple(axis if axis in added else places[next(rest)] for axis in range(rank))


def removed_axes(before: Axes, after: Axes) -> Axes:
    """Which axes of one element a squeeze from one shape to another removes."""
    gone, rest = [], list(after)
    for axis, size in enumerate(before):
        if rest and rest[0] == size and len(before) - axis - 1 >= len(rest) - 1:
            rest.pop(0)
        else:
            gone.append(axis)
    return tuple(gone)


def unit_order(before: Axes, after: Axes) -> Axes:
    """The permutation that a reshape is, which moves no axis but those of one element; empty where it is none."""
    left, order = list(before), []
    for target in after:
        axis = _first_match(left, target)
        if axis is None:
            return ()
        order.append(axis)
        left[axis] = _USED
    return tuple(order)


def _first_match(sizes: list[int], target: int) -> int | None:
    """The first axis of a size that is not behind another one that is left."""
    for axis, size in enumerate(sizes):
        if size == target:
            return axis
        if size not in (_USED, 1) and target != 1:
            return None
    return None
