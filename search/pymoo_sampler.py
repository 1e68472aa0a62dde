"""Algorithms of pymoo as samplers of Optuna; pymoo is the extra ``pymoo``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kneepoint.search.sampling.choice_codes import ChoiceCodes

POPULATION = 50
_WORST = 1e9
"""Told of a trial without values."""


class PymooSampler(BaseSampler):
    """Asks an algorithm of pymoo for a population, and tells it what all of it scored before it asks again.

    Parameters are whole numbers to it: positions among the choices, with the operators that pymoo documents for those
    (rounded simulated binary crossover and polynomial mutation). Trials that are asked for while a population is still
    being measured are random.

    Args:
        kind: A class of genetic algorithms, such as ``pymoo.algorithms.moo.nsga2.NSGA2``.
        space: What the parameters may be.
        seed: Of the algorithm.

    Raises:
        TypeError: If the class asks for more than a population and operators.
    """

    def __init__(self, kind: type[Any], space: Mapping[str, BaseDistribution], seed: int = 0) -> None:
        self._space = dict(space)
        self._codes = ChoiceCodes(space)
        self._seed = seed
        self._random = RandomSampler(seed)
        self._algorithm = _with_operators(kind)
        self._ready = False
        self._population: Any = None
        self._asked: dict[int, int] = {}
        self._scores: dict[int, tuple[list[float], float]] = {}
        self._due: list[int] = []

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters, from the first trial on."""
        del study, trial
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next of the population, or nothing while others measure the rest of it."""
        del search_space
        if not self._due and not self._asked:
            self._next_population(study)
        if not self._due:
            return {}
        row = self._due.pop(0)
        self._asked[trial.number] = row
        return self._codes.decode(np.round(self._population.get("X")[row]).astype(np.int64))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Note the scores, and tell the algorithm once the whole population has them."""
        row = self._asked.pop(trial.number, None)
        if row is None:
            return
        signs = [-1.0 if way == StudyDirection.MAXIMIZE else 1.0 for way in study.directions]
        told = values is not None and state == TrialState.COMPLETE
        losses = (
            [sign * value for sign, value in zip(signs, values or (), strict=False)] if told else [_WORST] * len(signs)
        )
        self._scores[row] = (losses, sum(max(value, 0.0) for value in trial.constraints.values()))
        if not self._due and not self._asked:
            rows = range(len(self._scores))
            self._population.set("F", np.array([self._scores[entry][0] for entry in rows]))
            self._population.set("G", np.array([[self._scores[entry][1]] for entry in rows]))
            self._algorithm.tell(infills=self._population)
            self._scores = {}

    def reseed_rng(self) -> None:
        """Random settings take another seed, as Optuna asks of samplers that are copied to other workers."""
        self._random.reseed_rng()

    def _next_population(self, study: Study) -> None:
        if not self._ready:
            self._set_up(len(study.directions))
        self._population = self._algorithm.ask()
        self._due = [] if self._population is None else list(range(len(self._population)))  # None: nothing is new

    def _set_up(self, objectives: int) -> None:
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination

        highest = np.array(self._codes.counts) - 1
        problem = Problem(n_var=len(highest), n_obj=objectives, n_ieq_constr=1, xl=0, xu=highest, vtype=int)
        self._algorithm.setup(problem, termination=NoTermination(), seed=self._seed, verbose=False)
        self._ready = True


def is_pymoo(kind: type[Any]) -> bool:
    """Whether a class is an algorithm of pymoo."""
    return any(base.__module__ == "pymoo.core.algorithm" for base in kind.__mro__)


def _with_operators(kind: type[Any]) -> Any:
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    return kind(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
