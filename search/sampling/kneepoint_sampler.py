"""The default sampler: baselines, then what a model of every choice's share expects to add most to all fronts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.course import Course, admits
from kneepoint.search.sampling.study_reader import StudyReader
from kneepoint.search.sampling.trial_memory import Identity, Parameters, TrialMemory


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
        identity: As given.
        course: The order of what it proposes.
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
        self.identity = identity
        self.course = Course(seed, anchors, advice, random_trials, batch)
        self._random = RandomSampler(seed)
        self._last_number = -1
        self.restart()

    @property
    def expected_gain(self) -> float:
        """The hypervolume that the latest batch was expected to add to the sum over all fronts.

        Infinite before there is one.
        """
        return self.course.expected_gain

    def restart(self) -> None:
        """Forget what belongs to another study."""
        self._space, self._shared = IntersectionSearchSpace(), dict[str, BaseDistribution]()
        self._shared_for = -1
        self._memory: TrialMemory | None = None
        self._known_space: Mapping[str, BaseDistribution] | None = None
        self.course.forget()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all trials share that had finished when the batch began, and that have a choice."""
        first = self.course.first_of_batch(trial.number)
        if self._shared_for != first or not self._shared:
            found = self._space.calculate(study)
            self._shared = {name: entry for name, entry in found.items() if not entry.single()}
            self._shared_for = first
        return self._shared

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Parameters:
        """The next of the chosen settings, or nothing while anchors and random settings are due."""
        if not search_space or not self.course.is_batched(trial.number):
            return {}
        memory = self._memory_of(study, search_space)
        self._reader.read(study, trial)
        codes = self.course.next(memory, trial.number)
        return {} if codes is None else memory.codes.decode(codes)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The anchor's value, or a random one."""
        if trial.number < len(self.course.anchors):
            value = self.course.anchors[trial.number].get(param_name)
            if value is not None and admits(param_distribution, value):
                return value
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the random choices of this trial a state of their own, and forget what belongs to another study."""
        del study
        seed = np.random.SeedSequence((self.course.seed, trial.number)).generate_state(1)[0]
        self._random = RandomSampler(int(seed))
        if trial.number <= self._last_number:
            self.restart()
        self._last_number = trial.number

    def reseed_rng(self) -> None:
        """Take another seed, as Optuna asks of samplers that are copied to other workers."""
        self.course.seed = int(np.random.default_rng().integers(2**31))

    def _memory_of(self, study: Study, space: Mapping[str, BaseDistribution]) -> TrialMemory:
        """What is known of the study, with this space."""
        if self._memory is not None and space is self._known_space:  # compared once a batch
            return self._memory
        self._known_space = space
        if self._memory is None or self._memory.space != space:
            signs = [-1.0 if way == StudyDirection.MAXIMIZE else 1.0 for way in study.directions]
            self._memory = TrialMemory(space, signs, identity=self.identity)
            self._reader = StudyReader(self._memory)
            self.course.advise(self._memory)
            self.course.forget()
        return self._memory
