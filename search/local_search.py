"""The default sampler: simple answers first, then small steps from the front."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kneepoint.search.neighbours import neighbour
from kneepoint.search.pareto import Matrix, contributions, non_dominated

Parameters = dict[str, Any]
Identity = Callable[[Mapping[str, Any]], Hashable]
_TRIES = 60
_WIDEN_AFTER = 10  # tries without a new setting, after which more parameters change
_CROSSOVER = 0.3
_ONE_WAY = 0.5
_CHANGES = 0.4  # success probability of the geometric number of changes, 2.5 on average


class FrontLocalSearch(BaseSampler):
    """Anchors, then mutation and crossover of the non-dominated trials.

    Anchors are settings worth measuring before anything else: uniform bit-widths of every architecture are hard to
    beat. After them, a parent is drawn from the feasible front (those who alone cover much hypervolume more often), a
    few of its parameters take a neighbouring value, half of the time all in one direction, and with a chance of 0.3 it
    is first crossed with a second parent. A setting that was proposed before is not proposed again, as long as 60
    tries find another.

    What is proposed depends on the seed, the trial's number and the trials before it alone, so a sampler built anew on
    the same study goes on in the same way.

    Args:
        seed: Of the random choices.
        anchors: Settings to propose first, in order.
        random_trials: Uniformly random settings after the anchors.
        identity: What a setting stands for, where several stand for the same; by default the setting itself.
    """

    def __init__(
        self,
        seed: int = 0,
        anchors: Sequence[Mapping[str, Any]] = (),
        random_trials: int = 10,
        identity: Identity | None = None,
    ) -> None:
        self.seed = seed
        self.anchors = [dict(anchor) for anchor in anchors]
        self.random_trials = random_trials
        self.identity = identity
        self._random = RandomSampler(seed)
        self._space = IntersectionSearchSpace()
        self._seen: dict[int, Hashable] = {}
        self._last_number = -1

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share and that have a choice."""
        del trial
        return {name: entry for name, entry in self._space.calculate(study).items() if not entry.single()}

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
        seen = self._seen_before(study, trial, search_space)
        fixed = parents[-1].params  # of the parameters without a choice, which the search space leaves out
        child: Parameters = {}
        for attempt in range(_TRIES):
            child = _child(front, weights, search_space, rng, spread=1 + attempt // _WIDEN_AFTER)
            if self._identify({**fixed, **child}, search_space) not in seen:
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
        """Give the random choices of this trial a state of their own, and forget what belongs to another study."""
        del study
        self._random = RandomSampler(_trial_seed(self.seed, trial.number))
        if trial.number <= self._last_number:
            self._space = IntersectionSearchSpace()
            self._seen = {}
        self._last_number = trial.number

    def reseed_rng(self) -> None:
        """Take another seed, as Optuna asks of samplers that are copied to other workers."""
        self.seed = int(np.random.default_rng().integers(2**31))

    def _seen_before(self, study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> set[Hashable]:
        """What the trials before this one stand for, finished or not; each is identified once."""
        for entry in study.get_trials(deepcopy=False)[len(self._seen) :]:
            if entry.number < trial.number:
                self._seen[entry.number] = self._identify(entry.params, space)
        return set(self._seen.values())

    def _identify(self, parameters: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> Hashable:
        if self.identity is not None and space.keys() <= parameters.keys():
            return self.identity(parameters)
        return tuple(parameters.get(name) for name in sorted(space))


def _front(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> tuple[list[FrozenTrial], Matrix]:
    """Non-dominated feasible trials (all, if none is feasible) and the chance of each to be a parent."""
    feasible = [trial for trial in trials if all(value <= 0.0 for value in trial.constraints.values())]
    pool = feasible or list(trials)
    signs = np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions])
    table = np.array([trial.values for trial in pool], dtype=np.float64) * signs
    rows = non_dominated(table)
    if not rows:
        return pool, np.full(len(pool), 1.0 / len(pool))
    added = contributions(_normalized(table[rows]))
    chance = added + max(float(added.mean()), 1e-12)
    return [pool[row] for row in rows], chance / chance.sum()


def _normalized(table: Matrix) -> Matrix:
    """Losses of a front between 0.05 and 0.95, so that its extremes cover something, too."""
    span = np.ptp(table, axis=0)
    scaled: Matrix = (table - table.min(axis=0)) / np.where(span > 0, span, 1.0)
    return 0.05 + 0.9 * scaled


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
    changes = min(len(space), int(rng.geometric(_CHANGES)) * spread)
    way = int(rng.choice((-1, 1))) if rng.random() < _ONE_WAY else 0
    for name in rng.choice(sorted(space), size=changes, replace=False):
        child[str(name)] = neighbour(child[str(name)], space[str(name)], rng, way)
    return child


def _admits(distribution: BaseDistribution, value: Any) -> bool:
    """Whether an anchor's value is one that the distribution holds."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(distribution, IntDistribution | FloatDistribution) or not isinstance(value, int | float):
        return False
    on_grid = not isinstance(distribution, IntDistribution) or (value - distribution.low) % distribution.step == 0
    return distribution.low <= value <= distribution.high and on_grid


def _trial_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
