"""The default sampler: simple answers first, then small steps from the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kneepoint.search.front import Matrix, contributions, non_dominated

Parameters = dict[str, Any]
_TRIES = 30
_CROSSOVER = 0.3
_JUMP = 0.15  # chance that a changed parameter takes any value instead of a neighbouring one


class FrontLocalSearch(BaseSampler):
    """Anchors, then mutation and crossover of the non-dominated trials.

    Anchors are settings worth measuring before anything else: uniform bit-widths of every architecture are hard to beat.
    After them, a parent is drawn from the feasible front (those who alone cover much hypervolume more often), a
    few of its parameters take a neighbouring value, and with a chance of 0.3 it is first crossed with a second parent. A
    setting that was proposed before is not proposed again. What is proposed depends on the seed, the trial's number
    and the finished trials alone, so a sampler built anew on the same study goes on in the same way.

    Args:
        seed: Of the random choices.
        anchors: Settings to propose first, in order.
        random_trials: Uniformly random settings after the anchors.
    """

    def __init__(self, seed: int = 0, anchors: Sequence[Mapping[str, Any]] = (), random_trials: int = 10) -> None:
        self.seed = seed
        self.anchors = [dict(anchor) for anchor in anchors]
        self.random_trials = random_trials
        self._random = RandomSampler(seed)
        self._space = optuna.search_space.IntersectionSearchSpace()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share, or those the anchors name before there are any."""
        del trial
        found = self._space.calculate(study)
        return {name: entry for name, entry in found.items() if not entry.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Parameters:
        """A child of the front, or nothing while anchors and random settings are due."""
        if not search_space or trial.number < len(self.anchors) + self.random_trials:
            return {}
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        parents = [entry for entry in finished if search_space.keys() <= entry.params.keys()]
        if not parents:
            return {}
        rng = np.random.default_rng((self.seed, trial.number))
        front, weights = _front(parents, study.directions)
        seen = {_key(entry.params, search_space) for entry in study.get_trials(deepcopy=False)}
        child: Parameters = {}
        for attempt in range(_TRIES):
            child = _child(front, weights, search_space, rng, spread=1 + attempt // 10)
            if _key(child, search_space) not in seen:
                break
        return child

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The anchor's value, or a random one."""
        if trial.number < len(self.anchors):
            value = self.anchors[trial.number].get(param_name)
            if value is not None and _admits(param_distribution, value):
                return value
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the random choices of this trial a state of their own."""
        del study
        self._random = RandomSampler(_trial_seed(self.seed, trial.number))

    def reseed_rng(self) -> None:
        """Take another seed, as Optuna asks of samplers that are copied to other workers."""
        self.seed = int(np.random.default_rng().integers(2**31))


def _front(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> tuple[list[FrozenTrial], Matrix]:
    """Non-dominated feasible trials (all, if none is feasible) and the chance of each to be a parent."""
    feasible = [trial for trial in trials if all(value <= 0.0 for value in trial.constraints.values())]
    pool = feasible or list(trials)
    signs = np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions])
    table = np.array([trial.values for trial in pool], dtype=np.float64) * signs
    rows = non_dominated(table)
    if not rows:
        return pool, np.full(len(pool), 1.0 / len(pool))
    worst = table[rows].max(axis=0)
    span = np.where(np.ptp(table[rows], axis=0) > 0, np.ptp(table[rows], axis=0), 1.0)
    added = contributions((table[rows] - worst) / (1.1 * span) + 0.95)
    chance = added + max(float(added.mean()), 1e-12)
    return [pool[row] for row in rows], chance / chance.sum()


def _child(
    front: Sequence[FrozenTrial],
    weights: Matrix,
    space: Mapping[str, BaseDistribution],
    rng: np.random.Generator,
    spread: int,
) -> Parameters:
    first, second = (front[int(rng.choice(len(front), p=weights))].params for _ in range(2))
    cross = rng.random() < _CROSSOVER
    child = {name: (second if cross and rng.random() < 0.5 else first)[name] for name in space}
    changes = min(len(space), int(rng.geometric(0.4)) * spread)
    for name in rng.choice(sorted(space), size=changes, replace=False):
        child[str(name)] = _neighbour(child[str(name)], space[str(name)], rng)
    return child


def _neighbour(value: Any, distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    if isinstance(distribution, IntDistribution):
        step = distribution.step
        low, high = distribution.low, distribution.high
        if rng.random() < _JUMP:
            return low + step * int(rng.integers((high - low) // step + 1))
        moved = value + step * int(rng.choice((-1, 1)))
        return int(min(max(moved, low), low + (high - low) // step * step))
    if isinstance(distribution, FloatDistribution):
        return _neighbouring_float(float(value), distribution, rng)
    raise TypeError(f"unknown distribution {distribution!r}")


def _neighbouring_float(value: float, distribution: FloatDistribution, rng: np.random.Generator) -> float:
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        moved = value + distribution.step * int(rng.choice((-1, 1)))
    elif distribution.log:
        moved = float(np.exp(np.log(value) + rng.normal(0.0, 0.1) * np.log(high / low)))
    else:
        moved = value + float(rng.normal(0.0, 0.1)) * (high - low)
    return float(min(max(moved, low), high))


def _admits(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, (IntDistribution, FloatDistribution))  # noqa: S101 - Optuna has no fourth kind
    return isinstance(value, (int, float)) and distribution.low <= value <= distribution.high


def _key(parameters: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> tuple[Any, ...]:
    return tuple(parameters.get(name) for name in sorted(space))


def _trial_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
