"""The default sampler: baselines, then what a model of every choice's share expects to add most to all fronts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial
from threadpoolctl import ThreadpoolController

from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.posterior import Codes
from kneepoint.search.sampling.trial_memory import Identity, Parameters, TrialMemory

_TRIES = 60
"""Random settings that are looked at for a new one, where nothing promises anything."""


class KneepointSampler(BaseSampler):
    """Anchors, then settings of the largest expected hypervolume improvement over all fronts of a job.

    Anchors are settings worth measuring before anything else: uniform bit-widths of every architecture are hard to
    beat. From them on, a model of every objective says what each choice contributes, what their sum misses, and how
    sure that is; weighted sums of drawn models, minimized, and neighbours of the measured front are the candidates;
    those that are expected to add most to the fronts, together, are proposed, a batch at a time.

    What is proposed depends on the seed, the trial's number and the trials before its batch alone, so a sampler built
    anew on the same study goes on in the same way (but for advice with prices: those that were asked for before are
    remembered, and have to be asked for again). It works in any Optuna study, with any number of objectives; advice
    makes it better.

    Args:
        seed: Of the random choices.
        anchors: Settings to propose first, in order.
        advice: What is known of the objectives, or a function that finds out, which is called after the anchors;
            without any, everything is learned from the trials.
        random_trials: Uniformly random settings after the anchors.
        identity: What a setting stands for, where several stand for the same; by default the setting itself.
        batch: Settings that are chosen together, before what is measured of them is looked at.

    Attributes:
        expected_gain: The hypervolume that the latest batch was expected to add to the sum over all fronts; infinite
            before there is one.
    """

    def __init__(
        self,
        seed: int = 0,
        anchors: Sequence[Mapping[str, Any]] = (),
        advice: Advice | Callable[[], Advice] | None = None,
        random_trials: int = 10,
        identity: Identity | None = None,
        batch: int = 4,
    ) -> None:
        self.seed = seed
        self.anchors = [dict(anchor) for anchor in anchors]
        self.advice = advice
        self.random_trials = random_trials
        self.identity = identity
        self.batch = batch
        self.expected_gain = float("inf")
        self._random = RandomSampler(seed)
        self._space = IntersectionSearchSpace()
        self._shared: dict[str, BaseDistribution] = {}
        self._shared_for = -1
        self._memory: TrialMemory | None = None
        self._chosen: list[Codes] = []
        self._chosen_for = self._last_number = -1

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all trials share that had finished when the batch began, and that have a choice."""
        first = self._first_of_batch(trial)
        if self._shared_for != first or not self._shared:
            found = self._space.calculate(study)
            self._shared = {name: entry for name, entry in found.items() if not entry.single()}
            self._shared_for = first
        return self._shared

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Parameters:
        """The next of the chosen settings, or nothing while anchors and random settings are due."""
        first = self._first_of_batch(trial)
        if not search_space or first < len(self.anchors) + self.random_trials:
            return {}
        memory = self._memory_of(study, trial, search_space)
        if self._chosen_for != first:
            self._chosen = self._proposals(memory, first)
            self._chosen_for = first
        codes = self._next(memory, trial.number)
        return {} if codes is None else memory.codes.decode(codes)

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
        self._random = RandomSampler(int(np.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0]))
        if trial.number <= self._last_number:
            self._forget()
        self._last_number = trial.number

    def reseed_rng(self) -> None:
        """Take another seed, as Optuna asks of samplers that are copied to other workers."""
        self.seed = int(np.random.default_rng().integers(2**31))

    def _forget(self) -> None:
        self._space, self._memory, self._shared = IntersectionSearchSpace(), None, {}
        self._chosen, self._chosen_for = [], -1

    def _first_of_batch(self, trial: FrozenTrial) -> int:
        """The number of the trial that the batch of this one begins with; its own before there are batches."""
        place = trial.number - len(self.anchors) - self.random_trials
        return trial.number - place % self.batch if place >= 0 else trial.number

    def _memory_of(self, study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> TrialMemory:
        """The trials until now."""
        if self._memory is None or self._memory.space != space:
            advice = self.advice() if callable(self.advice) else self.advice
            self.advice, self._chosen_for = advice, -1
            self._memory = TrialMemory(space, study.directions, advice, self.identity)
        self._memory.read(study, trial)
        return self._memory

    def _next(self, memory: TrialMemory, number: int) -> Codes | None:
        """The first of the chosen settings that no trial has, else a random one; what is passed over is done with."""
        while self._chosen:
            codes = self._chosen.pop(0)
            if memory.identify(codes, number) is not None:
                return codes
        anything = memory.anything(np.random.default_rng((self.seed, number)), _TRIES)
        return next((codes for codes in anything if memory.identify(codes, number) is not None), None)

    def _proposals(self, memory: TrialMemory, first: int) -> list[Codes]:
        """The batch that begins with trial ``first``."""
        evidence = memory.evidence(before=first)
        if evidence is None:
            return []
        random = np.random.default_rng((self.seed, first))
        with _one_thread():
            found = memory.proposer().propose(evidence, lambda row: memory.identify(row, first), random, self.batch)
        self.expected_gain = sum(gain for _, gain in found)
        return [codes for codes, _ in found]


def _one_thread() -> AbstractContextManager[object]:
    """Linear algebra on one thread: matrices are small, and the same sums come out whatever the cores."""
    limited: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limited


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _admits(distribution: BaseDistribution, value: Any) -> bool:
    """Whether an anchor's value is one that the distribution holds."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(distribution, IntDistribution | FloatDistribution) or not isinstance(value, int | float):
        return False
    on_grid = not isinstance(distribution, IntDistribution) or (value - distribution.low) % distribution.step == 0
    return distribution.low <= value <= distribution.high and on_grid
