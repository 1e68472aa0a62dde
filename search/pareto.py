"""Sets of points, all losses minimized: which are not dominated, and how much they cover."""

from __future__ import annotations

import moocore
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def non_dominated(table: Matrix) -> list[int]:
    """The rows that no other row dominates, in order.

    Args:
        table: Shape (points, losses). Rows with a NaN or an infinity are never part of the answer; of equal rows the
            first is.
    """
    finite = np.flatnonzero(np.isfinite(table).all(axis=1))
    if len(finite) == 0:
        return []
    kept = moocore.is_nondominated(_two_columns(table[finite]), keep_weakly=False)
    return [int(row) for row in finite[kept]]


def hypervolume(table: Matrix) -> float:
    """The volume that the rows of ``table`` dominate within the unit box, in [0, 1].

    Args:
        table: Shape (points, losses), 0 the ideal and 1 the reference point. Rows that are not below 1 in every loss,
            and rows that are not finite, add nothing; losses below 0 count as 0.
    """
    inside = _two_columns(np.maximum(table[_inside(table)], 0.0))
    return float(moocore.hypervolume(inside, ref=1.0)) if len(inside) else 0.0


def _inside(table: Matrix) -> npt.NDArray[np.bool_]:
    """Which rows are finite and better than the reference point in every loss."""
    return np.asarray(np.isfinite(table).all(axis=1) & (table < 1.0).all(axis=1))


def _two_columns(table: Matrix) -> Matrix:
    """A single loss with a second one that is ideal everywhere: moocore takes two and more."""
    return table if table.shape[1] > 1 else np.hstack([table, np.zeros_like(table)])
