"""How much hypervolume settings are expected to add to several fronts at once, by sampling what the fronts lack.

Points are drawn from the region that some setting may reach and no front member dominates. A setting's expected
improvement is the volume of the points it dominates, each weighed by the probability that it does; settings that are
chosen together share: a point that one of them probably covers counts less for the next. For one setting this is the
expected hypervolume improvement of Emmerich, Giannakoglou & Naujoks 2006, integrated by importance sampling.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
_OPTIMISM = 2.0
"""Standard deviations below its expected losses that a setting may reach."""
_BOXES = 128
"""Settings whose boxes points are drawn from."""
_DRAWS = 16
"""Points drawn for each that is wanted, at most: many are dominated already."""


@dataclass(frozen=True, eq=False)
class Guesses:
    """What is expected of settings.

    Attributes:
        mean: (settings, losses) expected, 1 the reference point.
        spread: (settings, losses) one standard deviation of each; 0 for what is known.
        chance: (settings,) how probably each is feasible, as far as no limit states it.
        limits: (losses,) that a feasible setting keeps; at most 1.
    """

    mean: Floats
    spread: Floats
    chance: Floats
    limits: Floats

    def __len__(self) -> int:
        return len(self.mean)

    def of(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Guesses:
        """Those of some settings."""
        return replace(self, mean=self.mean[rows], spread=self.spread[rows], chance=self.chance[rows])

    @property
    def best(self) -> Floats:
        """(settings, losses) that they may reach, with some luck."""
        return np.asarray(np.clip(self.mean - _OPTIMISM * self.spread, 0.0, None))

    def may_add(self, front: Floats, fronts: Sequence[Sequence[int]]) -> npt.NDArray[np.bool_]:
        """(settings,) whether what they may reach is feasible and beyond a front, of some of the losses each."""
        best, found = self.best, np.zeros(len(self), bool)
        for columns in fronts:
            reached = best[:, columns]
            found |= (reached < 1).all(axis=1) & ~dominated(reached, front[:, columns])
        return np.asarray(found & (best <= self.limits).all(axis=1))

    def told(self, losses: Floats) -> Guesses:
        """The same, but for losses that are known: (settings, losses), NaN for the others."""
        known = np.isfinite(losses)
        return replace(self, mean=np.where(known, losses, self.mean), spread=np.where(known, 0.0, self.spread))


@dataclass(frozen=True, eq=False)
class MissingVolume:
    """Points that a front does not dominate.

    Attributes:
        columns: Of the losses that the front is about.
        points: (points, columns).
        weights: (points,) the volume that each stands for.
    """

    columns: Sequence[int]
    points: Floats
    weights: Floats

    @classmethod
    def of(
        cls, front: Floats, guesses: Guesses, columns: Sequence[int], random: np.random.Generator, count: int
    ) -> MissingVolume:
        """Points between what settings may reach and the reference point 1.

        Args:
            front: (members, losses) of the front.
            guesses: Of the settings.
            columns: Of the losses that the front is about.
            random: Draws.
            count: Of points, about.
        """
        boxes = _boxes(guesses, columns, front[:, columns], random)
        volume = (1 - boxes).prod(axis=1)
        points, drawn = _lacking(boxes, front[:, columns], random, count)
        if not len(points):
            return cls(columns, np.zeros((0, len(columns))), np.zeros(0))
        reaches = (points[:, None, :] >= boxes[None, :, :]).all(axis=2)
        density = (reaches / volume).mean(axis=1)
        return cls(columns, points, 1 / (density * drawn))

    def without(self, guesses: Guesses) -> MissingVolume:
        """Less what settings that are being measured will probably dominate."""
        return replace(self, weights=self.weights * (1 - self.covered(guesses)).prod(axis=0))

    def covered(self, guesses: Guesses) -> Floats:
        """(settings, points): the probability that each setting is feasible and dominates each point.

        It is and does where each loss is at most the point's, and at most the limit.
        """
        probability = np.repeat(guesses.chance[:, None], len(self.points), axis=1)
        for column, limit in enumerate(guesses.limits):
            if column in self.columns:
                bounds = np.minimum(self.points[:, self.columns.index(column)], limit)
            elif limit < 1:
                bounds = np.full(len(self.points), limit)
            else:
                continue
            probability *= _below(guesses, column, bounds)
        return probability


def _below(guesses: Guesses, column: int, bounds: Floats) -> Floats:
    """(settings, bounds): the probability that a loss of each setting is at most each bound."""
    distance = bounds[None, :] - guesses.mean[:, None, column]
    known = guesses.spread[:, column] <= 0
    if known.all():
        return np.asarray(distance >= 0, np.float64)
    scale = np.where(known, 1.0, guesses.spread[:, column])[:, None]
    probability = _normal_cdf(distance / scale)
    probability[known] = distance[known] >= 0
    return probability


def _normal_cdf(values: Floats) -> Floats:
    """The standard normal distribution function; torch's is vectorized, and takes a sixth of the time of SciPy's."""
    return np.asarray(torch.erfc(torch.from_numpy(values * -math.sqrt(0.5))).numpy() / 2)


def best_batch(volumes: Sequence[MissingVolume], guesses: Guesses, count: int) -> list[tuple[int, float]]:
    """Settings that together are expected to add most, greedily, each with what it adds to those before it.

    What a setting adds falls with every other that is chosen, so that what it added at an earlier step bounds what it
    adds now: only settings at the head of the queue are looked at again (Minoux 1978, "accelerated greedy").
    """
    covered = [volume.covered(guesses) for volume in volumes]
    weights = [volume.weights.copy() for volume in volumes]
    at_first = sum((part @ weight for part, weight in zip(covered, weights, strict=True)), np.zeros(len(guesses)))
    queue = [(-gain, row, 0) for row, gain in enumerate(at_first.tolist())]
    heapq.heapify(queue)
    chosen: list[tuple[int, float]] = []
    while queue and len(chosen) < count:
        bound, row, seen = queue[0]
        if seen < len(chosen):
            gain = sum(float(part[row] @ weight) for part, weight in zip(covered, weights, strict=True))
            heapq.heapreplace(queue, (-gain, row, len(chosen)))
            continue
        heapq.heappop(queue)
        chosen.append((row, -bound))
        for part, weight in zip(covered, weights, strict=True):
            weight *= 1 - part[row]
    return chosen


def dominated(points: Floats, front: Floats) -> npt.NDArray[np.bool_]:
    """Which points some member of the front is at least as good as, in every loss."""
    covered = np.ones((len(points), len(front)), bool)
    for own, other in zip(points.T, front.T, strict=True):
        covered &= other[None, :] <= own[:, None]
    return np.asarray(covered.any(axis=1))


def _boxes(guesses: Guesses, columns: Sequence[int], front: Floats, random: np.random.Generator) -> Floats:
    """(boxes, columns) corners of what some of the settings may reach, up to the reference point."""
    best = guesses.best
    best = best[(best <= guesses.limits).all(axis=1)][:, columns]
    best = best[(best < 1).all(axis=1)]
    best = best[~dominated(best, front)]
    if len(best) > _BOXES:
        best = best[random.choice(len(best), _BOXES, replace=False)]
    return best


def _lacking(boxes: Floats, front: Floats, random: np.random.Generator, count: int) -> tuple[Floats, int]:
    """Points of the boxes that no member dominates, at most ``count``; and how many draws they took."""
    found: list[Floats] = []
    drawn = 0
    while len(boxes) and drawn < _DRAWS * count and sum(map(len, found)) < count:
        corners = boxes[random.integers(len(boxes), size=count)]
        points = corners + random.random(corners.shape) * (1 - corners)
        found.append(points[~dominated(points, front)])
        drawn += count
    return np.concatenate(found) if found else np.zeros((0, front.shape[1])), drawn
