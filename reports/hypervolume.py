"""The hypervolume that a search had reached after each of its trials."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from kneepoint.reports.run_view import RunView, TrialEntry

MEASURED = ("ptq", "recovered", "full")


def losses(view: RunView, trial: TrialEntry) -> NDArray[np.float64] | None:
    """The trial's scores as losses: 0 at the ideal and 1 at the worst value of each objective.

    loss = (ideal - value) / (ideal - worst), which turns every direction into minimization.

    Returns:
        Shape (objectives,); None for a trial that failed or lacks a score.
    """
    if trial.failed or trial.scores is None or any(one.name not in trial.scores for one in view.objectives):
        return None
    values = np.array([trial.scores[one.name].value for one in view.objectives])
    ideal = np.array([view.front.reference[one.name].ideal for one in view.objectives])
    worst = np.array([view.front.reference[one.name].worst for one in view.objectives])
    scaled: NDArray[np.float64] = (ideal - values) / (ideal - worst)
    return scaled


def hypervolume_curve(view: RunView) -> list[float]:
    """The hypervolume of everything measured so far, after each trial of the search (baselines do not count).

    The reference point is 1 in every loss; points beyond it add nothing. Constraints are not applied, and a policy
    counts with every fidelity it was measured at (``proxy`` scores do not count), so that the curve never falls. Its
    end may therefore lie above the hypervolume of the front.

    Returns:
        One value a trial of ``view.searched``; a trial that failed repeats the value before it.
    """
    curve: list[float] = []
    front = np.empty((0, len(view.objectives)))
    volume = 0.0
    for trial in view.searched:
        point = losses(view, trial) if trial.fidelity in MEASURED else None
        if point is not None and (point < 1).all() and not _dominated(point, front):
            front = np.vstack([front[~(front >= point).all(axis=1)], point])
            volume = float(moocore.hypervolume(front, ref=np.ones(front.shape[1])))
        curve.append(volume)
    return curve


def _dominated(point: NDArray[np.float64], front: NDArray[np.float64]) -> bool:
    """Whether some row of ``front`` is at least as good as ``point`` in every loss."""
    return bool((front <= point).all(axis=1).any())


def nondominated(losses_: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point beats in both losses, in order of the first; duplicates count once."""
    best = float("inf")
    kept = []
    for index in sorted(range(len(losses_)), key=lambda one: losses_[one]):
        if losses_[index][1] < best:
            best = losses_[index][1]
            kept.append(index)
    return kept
