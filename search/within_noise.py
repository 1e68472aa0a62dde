"""What measurements can tell apart: dominance that holds beyond the standard errors of both sides."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kneepoint.search.pareto import Matrix

SURE = 2.0
"""Standard errors of a difference from which on it is taken to be real: 95 % of chance differences are smaller."""

Flags = npt.NDArray[np.bool_]


def surely_less(losses: Matrix, errors: Matrix, other: Matrix, other_errors: Matrix) -> Flags:
    """Where ``losses`` are below ``other`` by more than chance; arrays that broadcast against each other.

    The errors of both sides are taken to be independent, which is careful: what two candidates share (the validation
    samples, a cost model's bias) makes their difference surer than that.
    """
    return np.asarray(other - losses > SURE * np.hypot(errors, other_errors))


def undominated(losses: Matrix, errors: Matrix) -> list[int]:
    """The rows that no other row surely dominates, in order.

    A row surely dominates another if it is nowhere worse, and somewhere better by more than chance. Of rows that are
    equal, or equal but for chance, all stay; where all errors are 0 the rest is the ordinary front.

    Args:
        losses: Shape (points, losses), smaller is better. Rows with a NaN or an infinity are never part of the answer.
        errors: The same shape, one standard error of each; 0 for what is exact.
    """
    finite = np.flatnonzero(np.isfinite(losses).all(axis=1))
    return [int(row) for row in finite if not _is_dominated(int(row), losses[finite], errors[finite], losses, errors)]


def alike(losses: Matrix, errors: Matrix) -> Flags:
    """(points, points) whether no loss that has an error tells two points apart; never so where all are exact."""
    uncertain = np.flatnonzero((errors > 0).any(axis=0))
    values, spread = losses[:, uncertain], errors[:, uncertain]
    less = surely_less(values[:, None], spread[:, None], values[None], spread[None]).any(axis=2)
    return np.asarray(~(less | less.T) & ~np.eye(len(losses), dtype=bool) & bool(len(uncertain)))


def _is_dominated(row: int, rivals: Matrix, rival_errors: Matrix, losses: Matrix, errors: Matrix) -> bool:
    no_worse = (rivals <= losses[row]).all(axis=1)
    surely = surely_less(rivals[no_worse], rival_errors[no_worse], losses[row], errors[row])
    return bool(surely.any())
