"""The order in which the default sampler proposes: anchors, random settings, then batches chosen together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from threadpoolctl import ThreadpoolController

from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.posterior import Codes
from kneepoint.search.sampling.trial_memory import Parameters, TrialMemory

_TRIES = 60
"""Random settings that are looked at for a new one, where nothing promises anything."""


class Course:
    """Knows which setting is due; what it is depends on the seed, the trial's number and the trials before its batch.

    Args:
        seed: Of the random choices.
        anchors: Settings to propose first, in order.
        advice: What is known of the objectives, or a function that finds out, called before the first batch.
        random_trials: Uniformly random settings after the anchors.
        batch: Settings that are chosen together.

    Attributes:
        expected_gain: The hypervolume that the latest batch was expected to add to the sum over all fronts; infinite
            before there is one.
    """

    def __init__(
        self,
        seed: int,
        anchors: Sequence[Mapping[str, Any]],
        advice: Advice | Callable[[], Advice] | None,
        random_trials: int,
        batch: int,
    ) -> None:
        self.seed = seed
        self.anchors = [dict(anchor) for anchor in anchors]
        self.expected_gain = float("inf")
        self._advice = advice
        self._start = len(self.anchors) + random_trials
        self._batch = batch
        self.forget()

    def forget(self) -> None:
        """Let go of a batch that belongs to another study."""
        self._chosen: list[Codes] = []
        self._chosen_for = -1

    def first_of_batch(self, number: int) -> int:
        """The number of the trial that the batch of this one begins with; its own before there are batches."""
        place = number - self._start
        return number - place % self._batch if place >= 0 else number

    def is_batched(self, number: int) -> bool:
        """Whether anchors and random settings are behind this trial."""
        return number >= self._start

    def setting(self, memory: TrialMemory, number: int) -> Parameters:
        """The whole setting of a trial."""
        anything = memory.setting(memory.anything(np.random.default_rng((self.seed, number)), 1)[0])
        if number < len(self.anchors):
            return {name: self._anchored(memory, number, name, value) for name, value in anything.items()}
        codes = self.next(memory, number) if self.is_batched(number) else None
        return anything if codes is None else memory.setting(codes)

    def next(self, memory: TrialMemory, number: int) -> Codes | None:
        """The next of the batch that the trial belongs to; None where nothing new is left."""
        first = self.first_of_batch(number)
        if self._chosen_for != first:
            self._chosen, self._chosen_for = self._proposals(memory, first), first
        while self._chosen:
            codes = self._chosen.pop(0)
            if memory.identify(codes, number) is not None:
                return codes
        anything = memory.anything(np.random.default_rng((self.seed, number)), _TRIES)
        return next((codes for codes in anything if memory.identify(codes, number) is not None), None)

    def advise(self, memory: TrialMemory) -> None:
        """Give ``memory`` the advice, which is found out now if it was not yet."""
        if callable(self._advice):
            self._advice = self._advice()
        memory.advise(self._advice)

    def _anchored(self, memory: TrialMemory, number: int, name: str, otherwise: Any) -> Any:
        value = self.anchors[number].get(name)
        return value if value is not None and name in memory.space and admits(memory.space[name], value) else otherwise

    def _proposals(self, memory: TrialMemory, first: int) -> list[Codes]:
        """The batch that begins with trial ``first``."""
        evidence = memory.evidence(before=first)
        if evidence is None:
            return []
        random = np.random.default_rng((self.seed, first))
        with _one_thread():
            found = memory.proposer().propose(evidence, lambda row: memory.identify(row, first), random, self._batch)
        self.expected_gain = sum(gain for _, gain in found)
        return [codes for codes, _ in found]


def admits(distribution: BaseDistribution, value: Any) -> bool:
    """Whether an anchor's value is one that the distribution holds."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(distribution, IntDistribution | FloatDistribution) or not isinstance(value, int | float):
        return False
    on_grid = not isinstance(distribution, IntDistribution) or (value - distribution.low) % distribution.step == 0
    return distribution.low <= value <= distribution.high and on_grid


@contextmanager
def _one_thread() -> Iterator[None]:
    """Arithmetic on one thread: matrices are small, and the same sums come out whatever the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
