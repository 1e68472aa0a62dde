"""Who climbs to the next fidelity: the one that is expected to add most to the front up there, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from kneepoint.search.axis import Axis
from kneepoint.search.front import Candidate, losses
from kneepoint.search.pareto import Matrix, non_dominated
from kneepoint.search.rung_model import RungModel
from kneepoint.search.sampling.expected_improvement import Guesses, MissingVolume, best_batch
from kneepoint.search.within_noise import undominated

_POINTS = 2048
_CONSIDERED = 1024
"""Candidates that are looked at, at most, where they are very many."""
_LOOKED_AT = 64
"""Candidates that are ranked, those first that are expected to add most."""


@dataclass(frozen=True, eq=False)
class Promotion:
    """The candidates of one fidelity, from which those are taken that are measured at the next.

    Costs are the same up there; of quality it is expected what :class:`RungModel` says, which learns from every
    candidate that climbed. So a network that is ruined before training may be the next, if those that were as ruined
    recovered. Nothing waits for a whole rung to be measured.

    Attributes:
        waiting: Candidates at the lower fidelity.
        axes: The objectives.
        repaired: For every objective, whether training changes it.
        fronts: For every front of the job, the places of its objectives.
        limits: For every objective, the largest loss that constraints admit.
        hidden: Whether constraints are about more than that: then only feasible candidates climb.
        seed: Of the draws.
        known_losses: Of the waiting, (candidates, losses), where somebody keeps them.
    """

    waiting: Sequence[Candidate]
    axes: Sequence[Axis]
    repaired: Sequence[bool]
    fronts: Sequence[Sequence[int]]
    limits: Sequence[float]
    hidden: bool
    seed: int
    known_losses: Matrix | None = None

    def next(self, climbed: Sequence[Candidate], tried: Collection[str] = ()) -> Candidate | None:
        """The candidate to measure next; None where none is expected to add anything.

        It is one of those that no other surely dominates by what is expected of them (the first non-dominated rank,
        within noise), and of these the one that is expected to add most to the sum over all fronts.

        Args:
            climbed: At the upper fidelity, as far as they succeeded.
            tried: Policy ids of those that failed there.
        """
        known = {one.policy.id for one in climbed} | set(tried)
        rows = np.array([row for row, one in enumerate(self.waiting) if one.policy.id not in known], np.int64)
        front = self._front(climbed)
        rows, guesses = self._hopeful(rows, self._guesses(rows, climbed), front)
        random = np.random.default_rng((self.seed, len(climbed)))
        volumes = [MissingVolume.of(front, guesses, columns, random, _POINTS) for columns in self.fronts]
        best = [row for row, gain in best_batch(volumes, guesses, _LOOKED_AT) if gain > 0]
        first = undominated(guesses.mean[best], guesses.spread[best])
        return self.waiting[rows[best[first[0]]]] if first else None

    def _hopeful(
        self, rows: npt.NDArray[np.int64], guesses: Guesses, front: Matrix
    ) -> tuple[npt.NDArray[np.int64], Guesses]:
        """Those that may add to a front; of many the ones of the least losses."""
        hopeful = np.flatnonzero(guesses.may_add(front, self.fronts))
        order = np.argsort(guesses.mean[hopeful].sum(axis=1), kind="stable")
        some = np.sort(hopeful[order[:_CONSIDERED]])
        return rows[some], guesses.of(some)

    def _guesses(self, rows: npt.NDArray[np.int64], climbed: Sequence[Candidate]) -> Guesses:
        """What is expected of waiting candidates at the upper fidelity."""
        mean, spread = self._losses[rows], np.zeros((len(rows), len(self.axes)))
        places = {one.policy.id: row for row, one in enumerate(self.waiting)}
        lower = [places[one.policy.id] for one in climbed]
        upper = losses(climbed, self.axes)
        for column in np.flatnonzero(self.repaired):
            floor = self._floors[:, column]
            model = RungModel.of(self._losses[lower, column] - floor[lower], upper[:, column] - floor[lower])
            damage, spread[:, column] = model.predict(mean[:, column] - floor[rows])
            mean[:, column] = floor[rows] + damage
        chance = np.array([float(self.waiting[row].feasible or not self.hidden) for row in rows])
        return Guesses(mean, spread, chance, np.array(self.limits))

    def _front(self, climbed: Sequence[Candidate]) -> Matrix:
        """(members, losses) of what is known at the upper fidelity."""
        feasible = losses([one for one in climbed if one.feasible], self.axes)
        return feasible[non_dominated(feasible)]

    @cached_property
    def _losses(self) -> Matrix:
        return losses(self.waiting, self.axes) if self.known_losses is None else self.known_losses

    @cached_property
    def _floors(self) -> Matrix:
        """(candidates, losses): the least that a candidate of the same architecture was measured to lose."""
        found = np.empty_like(self._losses)
        students = [one.policy.student for one in self.waiting]
        for student in set(students):
            rows = [row for row, own in enumerate(students) if own == student]
            found[rows] = self._losses[rows].min(axis=0)
        return found
