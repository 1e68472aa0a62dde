"""The searches that search_efficiency.py compares: each proposes settings and is told what they scored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling

from benchmarks.search_problems import Problem
from kneepoint.search.sampling import proposer
from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.search.sampling.posterior import Posterior

Search = Generator[dict[str, Any], Sequence[float] | None, None]
"""Yields settings; is sent the values of each, or None for a failure."""
Method = Callable[[Problem, int], Search]
OURS = "kneepoint"
_POPULATION = 50
_WORST = 1e3
"""What pymoo is told of a failure, in losses."""


def of_optuna(sampler_of: Callable[[Problem, int], BaseSampler]) -> Method:
    """A search by a sampler of Optuna."""

    def search(problem: Problem, seed: int) -> Search:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=sampler_of(problem, seed), directions=[*problem.directions])
        while True:
            trial = study.ask(dict(problem.space))
            values = yield dict(trial.params)
            if values is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, list(values))

    return search


def of_pymoo(problem: Problem, seed: int) -> Search:
    """NSGA-II as pymoo documents it for integers: rounded simulated binary crossover and polynomial mutation."""
    names, choices = list(problem.space), [_choices(entry) for entry in problem.space.values()]
    wanted = PymooProblem(
        n_var=len(names),
        n_obj=len(problem.directions),
        xl=0,
        xu=np.array([len(entry) - 1 for entry in choices]),
        vtype=int,
    )
    algorithm = NSGA2(
        pop_size=_POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(wanted, termination=NoTermination(), seed=seed, verbose=False)
    while True:
        population = algorithm.ask()
        losses = []
        for row in population.get("X"):
            values = yield {name: entry[int(at)] for name, entry, at in zip(names, choices, row, strict=True)}
            losses.append([_WORST] * len(problem.directions) if values is None else problem.losses(values))
        population.set("F", np.array(losses))
        algorithm.tell(infills=population)


def ours(
    problem: Problem, seed: int, *, anchors: bool = True, change: Callable[[Advice], Advice] | None = None
) -> BaseSampler:
    """The default sampler, as a job makes it."""

    def advice() -> Advice:
        return change(problem.advice()) if change else problem.advice()

    found = problem.anchors if anchors else ()
    return KneepointSampler(seed, found, advice, random_trials=0 if anchors else 10, identity=problem.identity)


def _choices(distribution: Any) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution)  # noqa: S101 - spaces of the project have these two kinds
    return range(distribution.low, distribution.high + 1)


RIVALS: Mapping[str, Method] = {
    "random": of_optuna(lambda _, seed: RandomSampler(seed=seed)),
    "tpe": of_optuna(lambda _, seed: TPESampler(multivariate=True, seed=seed)),
    "nsga2": of_optuna(lambda _, seed: NSGAIISampler(population_size=_POPULATION, seed=seed)),
    "nsga3": of_optuna(lambda _, seed: NSGAIIISampler(population_size=_POPULATION, seed=seed)),
    "gp": of_optuna(lambda _, seed: GPSampler(seed=seed)),
    "pymoo-nsga2": of_pymoo,
}


def _swept_only(self: proposer.Proposer, settings: Any, random: np.random.Generator) -> Any:
    return np.zeros((0, len(self.counts)), np.int64)


def _mutants_only(self: proposer.Proposer, models: Any, random: np.random.Generator) -> Any:
    return np.zeros((0, len(self.counts)), np.int64)


def _any_batch(volumes: Any, guesses: Any, count: int) -> list[tuple[int, float]]:
    """The first settings, in an order that says nothing."""
    order = np.random.default_rng(len(guesses)).permutation(len(guesses))
    return [(int(row), 0.0) for row in order[:count]]


PATCHES: Mapping[str, Any] = {
    "without the smooth rest": lambda: patch.object(Posterior, "_smoothed", lambda self: self),
    "without sweeps": lambda: patch.object(proposer.Proposer, "_swept", _mutants_only),
    "without mutants": lambda: patch.object(proposer.Proposer, "_mutants", _swept_only),
    "without expected improvement": lambda: patch.object(proposer, "best_batch", _any_batch),
}
ABLATIONS: Mapping[str, Method] = {
    OURS: of_optuna(ours),
    "without anchors": of_optuna(lambda problem, seed: ours(problem, seed, anchors=False)),
    "without sensitivities": of_optuna(
        lambda problem, seed: ours(
            problem, seed, change=lambda known: replace(known, contributions=[{}] * len(known.scales))
        )
    ),
    "without prices": of_optuna(
        lambda problem, seed: ours(problem, seed, change=lambda known: replace(known, price=None))
    ),
    **dict.fromkeys(PATCHES, of_optuna(ours)),
}
"""The default sampler whole, and with one stage switched off."""


@contextlib.contextmanager
def switched_off(name: str) -> Iterator[None]:
    """The stage that an ablation is named after, where that takes more than another argument."""
    with PATCHES[name]() if name in PATCHES else contextlib.nullcontext():
        yield
