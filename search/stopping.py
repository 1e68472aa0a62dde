"""When the rest of a budget would buy less than its measurements can tell."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from optuna.samplers import BaseSampler

from kneepoint.search.front import Front, loss_errors, losses
from kneepoint.search.pareto import hypervolume
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler

_DRAWS = 64
_NEGLIGIBLE = 0.01
"""A batch that is expected to add less than this share of the noise adds nothing that anybody could show."""
_BATCHES = 3
"""In a row, because a model that has just learned something may change its mind."""


class Stopping:
    """Watches what the sampler expects of the candidates it proposes.

    Args:
        sampler: Of the search; one that expects nothing in particular never stops it.
        measured: The objectives whose standard errors are noise.
    """

    def __init__(self, sampler: BaseSampler, measured: Collection[str]) -> None:
        self._sampler = sampler
        self._measured = frozenset(measured)
        self._gains: list[float] = []

    def is_due(self, front: Front) -> bool:
        """Whether the last batches were expected to add next to nothing to ``front``; to be asked after every trial."""
        if not isinstance(self._sampler, KneepointSampler):
            return False
        gain = self._sampler.expected_gain
        if self._gains and gain == self._gains[-1]:  # the same batch
            return False
        self._gains.append(gain)
        latest = self._gains[-_BATCHES:]
        if len(latest) < _BATCHES or not np.isfinite(latest).all():
            return False
        return max(latest) < _NEGLIGIBLE * hypervolume_error(front, self._measured)


def hypervolume_error(front: Front, measured: Collection[str]) -> float:
    """One standard error of a front's hypervolume, as far as it comes from those of its members' scores.

    Args:
        front: Any.
        measured: The objectives whose standard errors are noise; a cost model's are the same at every member.
    """
    table = losses(front, front.axes)
    noise = loss_errors(front, front.axes) * [axis.name in measured for axis in front.axes]
    if not noise.any():
        return 0.0
    random = np.random.default_rng(0)
    volumes = [hypervolume(table + noise * random.standard_normal(table.shape)) for _ in range(_DRAWS)]
    return float(np.std(volumes))
