"""What proposals are made from: measured settings, and those under way."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from kneepoint.search.pareto import non_dominated
from kneepoint.search.sampling.posterior import Codes, Floats

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was measured, and what is being measured.

    Attributes:
        codes: (settings, parameters) positions of choices.
        losses: (settings, losses), 0 the ideal and 1 the worst useful value.
        errors: (settings, losses), one standard error of each.
        feasible: (settings,) whether constraints hold.
        pending: (settings, parameters) of what others measure now.
        known_front: Rows that no other dominates, where somebody keeps them.
        known_keys: Those of ``codes`` (:func:`keys`), where somebody keeps them.
    """

    codes: Codes
    losses: Floats
    errors: Floats
    feasible: npt.NDArray[np.bool_]
    pending: Codes
    known_front: Rows | None = None
    known_keys: Set[int] | None = None

    @cached_property
    def front(self) -> Rows:
        """Rows that no other dominates, of the feasible ones where there are any."""
        if self.known_front is not None:
            return self.known_front
        rows = np.flatnonzero(self.feasible) if self.feasible.any() else np.arange(len(self.codes))
        return np.asarray(rows[non_dominated(self.losses[rows])], np.int64)

    def unknown(self, pool: Codes) -> Codes:
        """The settings of ``pool`` that were not measured, and are not."""
        measured, pending = self._measured, self._pending
        return pool[[key not in measured and key not in pending for key in keys(pool)]]

    def most_telling(self, most: int) -> Rows:
        """All settings, or those with the smallest sum of losses and the latest."""
        count = len(self.codes)
        if count <= most:
            return np.arange(count)
        best = np.argpartition(self.losses.sum(axis=1), most // 2)[: most // 2]
        return np.unique(np.concatenate((best, np.arange(count - most // 2, count))))

    @cached_property
    def _measured(self) -> Set[int]:
        return self.known_keys if self.known_keys is not None else set(keys(self.codes))

    @cached_property
    def _pending(self) -> Set[int]:
        return set(keys(self.pending))


def keys(codes: Codes) -> list[int]:
    """For every setting a number that two of them share by chance alone, once in 10^19."""
    found: list[int] = ((codes + 1) @ _factors(codes.shape[1])).tolist()  # whole numbers, modulo 2^64
    return found


@cache
def _factors(count: int) -> Codes:
    return np.random.default_rng(0).integers(np.iinfo(np.int64).max, size=count, dtype=np.int64)
