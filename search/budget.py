"""How much of a search is left: trials and minutes."""

from __future__ import annotations

import statistics
from collections import deque

RECENT = 15
"""Trials whose median time is the estimate; the first ones, which train students, soon drop out of it."""


class Budget:
    """Trials and wall time for measuring candidates.

    Time counts over all processes that worked on a run, by what the log says its trials took; so a run that spent its
    minutes and is resumed goes on to its finalists.

    Args:
        trials: Candidates to measure.
        minutes: For measuring them, or None for no limit.
        spent: Seconds that are gone before the first.
    """

    def __init__(self, trials: int, minutes: float | None, spent: float = 0.0) -> None:
        self.trials = trials
        self.seconds = None if minutes is None else 60.0 * minutes
        self.measured = 0
        self.elapsed = spent
        self._recent: deque[float] = deque(maxlen=RECENT)

    def spend(self, seconds: float, own_seconds: float | None = None, at_once: int = 1) -> None:
        """Count one candidate.

        Args:
            seconds: Since the one before it ended.
            own_seconds: That its measurement took, beside others.
            at_once: How many were measured at the same time.
        """
        self.measured += 1
        self.elapsed += seconds
        self._recent.append(max(seconds, own_seconds or 0.0) / at_once if at_once > 1 else seconds)

    @property
    def spent(self) -> bool:
        """Whether to stop. One candidate is measured in any case, so that there is something to show."""
        return self.spent_with(0)

    def spent_with(self, under_way: int) -> bool:
        """Whether to start no more, with so many candidates being measured."""
        begun = self.measured + under_way
        out_of_time = self.seconds is not None and self.elapsed >= self.seconds
        return begun >= self.trials or (begun > 0 and out_of_time)

    @property
    def share(self) -> float:
        """How much of it is spent, of what ends first."""
        by_time = self.elapsed / self.seconds if self.seconds else 0.0
        return min(1.0, max(self.measured / self.trials, by_time))

    @property
    def seconds_left(self) -> float | None:
        """An estimate, from the median of the recent trials; None before there is one to go by."""
        by_time = None if self.seconds is None else max(0.0, self.seconds - self.elapsed)
        if not self._recent:
            return by_time
        by_trials = statistics.median(self._recent) * (self.trials - self.measured)
        return by_trials if by_time is None else min(by_trials, by_time)
