"""Candidates on their way to a higher fidelity, while the search goes on below them or after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from kneepoint.search.front import Candidate
from kneepoint.search.goals import fronts_of, has_hidden_limits, limits_of
from kneepoint.search.pareto import Matrix
from kneepoint.search.promotion import Promotion
from kneepoint.search.record import Fidelity, Record
from kneepoint.search.trials import Trials
from kneepoint.search.workers.assignment import Assignment

_MISSES = 0.5
"""Candidates that miss the constraints up there, at most, as a share of those that are wanted."""


class Climb:
    """Takes candidates up one at a time, and learns from each who is next.

    Args:
        fidelity: To which.
        count: How many that meet the constraints are wanted.
        trials: Measures.

    Attributes:
        fidelity: As given.
        count: As given.
        records: Of those that were measured there, in order; those of an earlier process first.
        begun: Policy ids of those that are being measured.
    """

    def __init__(self, fidelity: Fidelity, count: int, trials: Trials) -> None:
        self.fidelity = fidelity
        self.records: list[Record] = []
        self.begun: set[str] = set()
        self.count = count
        self._trials = trials
        self._reached: list[Candidate] = []
        self._nobody: tuple[int, int] | None = None
        self._losses: dict[str, Sequence[float]] = {}
        for record in trials.log.records:
            self.take(record)

    @property
    def expected(self) -> int:
        """Candidates that will have been measured in the end, as it looks now."""
        missed = sum(not one.feasible for one in self._reached)
        return max(self.count + missed, len(self.records))

    def wants_more(self, share: float = 1.0) -> bool:
        """Whether fewer have begun than a share of those that are wanted."""
        measured = len(self.records) + len(self.begun)
        if measured >= share * self.count * (1 + _MISSES):
            return False
        return sum(one.feasible for one in self._reached) + len(self.begun) < share * self.count

    def start(self, candidates: Sequence[Candidate]) -> bool:
        """Have the next of ``candidates`` (at the lower fidelity) measured; whether any is expected to add something.

        Where nobody was, nobody is looked for again before there are a tenth more candidates, or one more up there.
        """
        if self._nobody and len(candidates) < 1.1 * self._nobody[0] and len(self.records) == self._nobody[1]:
            return False
        found = self._next(candidates)
        if found is None:
            self._nobody = len(candidates), len(self.records)
            return False
        known = self._trials.log.find(found.policy.id, self.fidelity)
        if known is not None:  # of a baseline
            self._add(known)
        else:
            self.begun.add(found.policy.id)
            self._trials.dispatcher.start(Assignment(found.policy, self.fidelity))
        return True

    def take(self, record: Record) -> bool:
        """A record that has ended; whether it is one of those."""
        if record.fidelity != self.fidelity or record.baseline is not None:
            return False
        self.begun.discard(record.policy.id)
        self._add(record)
        return True

    def rest(self, candidates: Sequence[Candidate]) -> Iterator[Record]:
        """Take up as many as are wanted: as many at a time as there are workers; the records, as they end."""
        dispatcher = self._trials.dispatcher
        while True:
            while dispatcher.room and self.wants_more() and self.start(candidates):
                pass
            if not self.begun:
                return
            yield from (record for record in dispatcher.finished() if self.take(record))

    def _add(self, record: Record) -> None:
        self.records.append(record)
        self._reached += self._trials.candidates([record])

    def _next(self, candidates: Sequence[Candidate]) -> Candidate | None:
        trials, waiting = self._trials, {one.policy.id for one in candidates}
        promotion = Promotion(
            waiting=candidates,
            axes=trials.axes,
            repaired=[not entry.predicted for entry in trials.job.objectives],
            fronts=fronts_of(trials.axes),
            limits=limits_of(trials),
            hidden=has_hidden_limits(trials),
            seed=trials.job.seed,
            known_losses=self._losses_of(candidates),
        )
        climbed = [
            replace(one, scores=trials.counted(one.scores, one.misfits))
            for one in self._reached
            if one.policy.id in waiting
        ]
        return promotion.next(climbed, [*(record.policy.id for record in self.records), *self.begun])

    def _losses_of(self, candidates: Sequence[Candidate]) -> Matrix:
        """(candidates, losses); those of a candidate are computed once, because they may be very many."""
        axes = self._trials.axes
        for one in candidates:
            if one.policy.id not in self._losses:
                counted = self._trials.counted(one.scores, one.misfits)
                self._losses[one.policy.id] = [axis.scale(counted[axis.name].value) for axis in axes]
        rows = [self._losses[one.policy.id] for one in candidates]
        return np.array(rows, np.float64).reshape(len(rows), len(axes))
