"""The default sampler without a study of Optuna between it and the search, which would cost as much again."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from kneepoint.objectives.objective import Direction
from kneepoint.search.proposing import Asked
from kneepoint.search.record import Record
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.search.sampling.trial_memory import TrialMemory
from kneepoint.spaces.joint_space import Choice
from kneepoint.tasks.metrics import Score


class DirectStudy:
    """Asks the sampler's course, and tells its memory; proposes what the sampler does in a study of Optuna.

    Args:
        sampler: Whose course to follow, from its beginning.
        distributions: Of every parameter.
        objectives: (name, direction) pairs, in the order of the values.
        measured: Objectives whose standard errors are noise; those of a cost model are the same at every trial.
    """

    def __init__(
        self,
        sampler: KneepointSampler,
        distributions: Mapping[str, BaseDistribution],
        objectives: Sequence[tuple[str, Direction]],
        measured: Collection[str] = (),
    ) -> None:
        sampler.restart()
        self._course = sampler.course
        self._names = [name for name, _ in objectives]
        self._measured = frozenset(measured)
        varying = {name: entry for name, entry in distributions.items() if not entry.single()}
        fixed = {name: _only(entry) for name, entry in distributions.items() if entry.single()}
        signs = [-1.0 if direction == "maximize" else 1.0 for _, direction in objectives]
        self._memory = TrialMemory(varying, signs, identity=sampler.identity, fixed=fixed)
        self._advised = False
        self._enqueued: deque[dict[str, Choice]] = deque()
        self._count = 0

    def ask(self) -> Asked:
        """The next setting to measure."""
        number = self._count
        if not self._advised and self._course.is_batched(number) and not self._enqueued:
            self._course.advise(self._memory)
            self._advised = True
        setting = self._enqueued.popleft() if self._enqueued else self._course.setting(self._memory, number)
        return self._begun(setting)

    def tell(self, asked: Asked, scores: Mapping[str, Score] | None, violations: Sequence[float]) -> None:
        """The outcome of a setting that was asked for; None for a failed one."""
        if scores is None:
            self._memory.end(asked.number, None, [], feasible=False)
            return
        values = [scores[name].value for name in self._names]
        errors = [scores[name].error if name in self._measured else None for name in self._names]
        self._memory.end(asked.number, values, errors, feasible=all(violation <= 0.0 for violation in violations))

    def enqueue(self, settings: Iterable[Mapping[str, Choice]]) -> None:
        """Settings that are asked for before any others."""
        self._enqueued.extend(dict(setting) for setting in settings)

    def add(self, record: Record, violations: Sequence[float]) -> None:
        """A proposal that an earlier process measured, or another driver."""
        if record.parameters is not None:
            self.tell(self._begun(dict(record.parameters)), record.scores, violations)

    def _begun(self, setting: dict[str, Choice]) -> Asked:
        asked = Asked(self._count, setting)
        self._memory.begin(self._count, setting)
        self._count += 1
        return asked


def _only(distribution: BaseDistribution) -> Any:
    """The only value of a distribution that has one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return distribution.to_external_repr(distribution.low)  # type: ignore[attr-defined]  # the others are intervals
