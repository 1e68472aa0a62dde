"""The searches that search_efficiency.py compares: each proposes settings and is told what they scored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from pymoo.algorithms.moo.nsga2 import NSGA2

from benchmarks.search_problems import Problem
from kneepoint.search.pymoo_sampler import PymooSampler
from kneepoint.search.sampling import proposer
from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.search.sampling.posterior import Posterior

Search = Generator[dict[str, Any], Sequence[float] | None, None]
"""Yields settings; is sent the values of each, or None for a failure."""
Method = Callable[[Problem, int], Search]
OURS = "kneepoint"
_POPULATION = 50


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


def ours(
    problem: Problem, seed: int, *, anchors: bool = True, change: Callable[[Advice], Advice] | None = None
) -> BaseSampler:
    """The default sampler, as a job makes it."""

    def advice() -> Advice:
        return change(problem.advice()) if change else problem.advice()

    found = problem.anchors if anchors else ()
    return KneepointSampler(seed, found, advice, random_trials=0 if anchors else 10, identity=problem.identity)


RIVALS: Mapping[str, Method] = {
    "random": of_optuna(lambda _, seed: RandomSampler(seed=seed)),
    "tpe": of_optuna(lambda _, seed: TPESampler(multivariate=True, seed=seed)),
    "nsga2": of_optuna(lambda _, seed: NSGAIISampler(population_size=_POPULATION, seed=seed)),
    "nsga3": of_optuna(lambda _, seed: NSGAIIISampler(population_size=_POPULATION, seed=seed)),
    "gp": of_optuna(lambda _, seed: GPSampler(seed=seed)),
    "pymoo-nsga2": of_optuna(lambda problem, seed: PymooSampler(NSGA2, problem.space, seed)),
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
