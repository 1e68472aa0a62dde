"""What a dearer measurement will say, from what a cheap one said and from the candidates that were measured twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kneepoint.search.pareto import Matrix

_SHARE, _SHARE_SPREAD = 0.3, 0.3
"""Of its damage that a network keeps: what training is believed to leave before anything was trained."""
_SHIFT_SPREAD = 0.02
"""Of the scale, by which training changes a network without damage."""
_NOISE, _NOISE_WEIGHT = 0.25, 1.0
"""One standard deviation of what the line misses, in units of the damage; and how many candidates this stands for."""
_LEAST = 0.01
"""Of the scale; damage that is smaller is missed by as much."""


@dataclass(frozen=True, eq=False)
class RungModel:
    """A line from damage before to damage after: Bayesian linear regression with a conjugate prior (Bishop 2006, 3.3).

    Damage is the loss beyond that of the best network of the same architecture: training repairs what quantization and
    pruning did, and does not make a student its teacher.

    Attributes:
        mean: (2,) shift, and share of the damage that is kept.
        covariance: (2, 2) of them, in units of the noise's variance.
        noise: One standard deviation of what the line misses, in units of the damage.
    """

    mean: Matrix
    covariance: Matrix
    noise: float

    @classmethod
    def of(cls, before: Matrix, after: Matrix) -> RungModel:
        """From the candidates that were measured twice, which may be none.

        Args:
            before: (candidates,) damage by the cheap measurement, in units of the scale.
            after: The same by the dear one.
        """
        prior_mean = np.array([0.0, _SHARE])
        precision = np.diag([(_NOISE / _SHIFT_SPREAD) ** 2, (_NOISE / _SHARE_SPREAD) ** 2])
        units = _units(before)
        rows, values = _rows(before) / units[:, None], after / units
        gram = precision + rows.T @ rows
        mean = np.linalg.solve(gram, precision @ prior_mean + rows.T @ values)
        missed = ((values - rows @ mean) ** 2).sum() + (mean - prior_mean) @ precision @ (mean - prior_mean)
        noise = np.sqrt((_NOISE_WEIGHT * _NOISE**2 + missed) / (_NOISE_WEIGHT + len(before)))
        return cls(np.asarray(mean), np.asarray(np.linalg.inv(gram)), float(noise))

    def predict(self, before: Matrix) -> tuple[Matrix, Matrix]:
        """The expected damage of other candidates by the dear measurement, and one standard deviation of each."""
        rows, units = _rows(before), _units(before)
        variance = units**2 + np.einsum("ij,jk,ik->i", rows, self.covariance, rows)
        return rows @ self.mean, self.noise * np.sqrt(variance)


def _rows(before: Matrix) -> Matrix:
    return np.stack((np.ones(len(before)), before), axis=1)


def _units(before: Matrix) -> Matrix:
    """The damage itself, but for the smallest: of what is ruined more is unknown."""
    return np.maximum(before, 0.0) + _LEAST
