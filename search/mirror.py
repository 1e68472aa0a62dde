"""The Optuna study that a sampler of Optuna works on while a run lives, and how a record becomes a trial of Optuna."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from kneepoint.objectives.objective import Direction
from kneepoint.search.job import Job
from kneepoint.search.proposing import Asked
from kneepoint.search.quiet import quiet_optuna
from kneepoint.search.record import Record
from kneepoint.search.sampling.study_reader import STANDARD_ERRORS
from kneepoint.tasks.metrics import Score

STUDY_NAME = "kneepoint"


class StudyMirror:
    """An in-memory study that samplers work on.

    Args:
        sampler: Proposes settings.
        distributions: Of every parameter; the same in every trial.
        objectives: (name, direction) pairs, in the order of the values.
        constraint_names: Of the violations, in order.
        measured: Objectives whose standard errors are noise; those of a cost model are the same at every trial.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        distributions: Mapping[str, BaseDistribution],
        objectives: Sequence[tuple[str, Direction]],
        constraint_names: Sequence[str] = (),
        measured: Collection[str] = (),
    ) -> None:
        self.measured = frozenset(measured)
        self.distributions = dict(distributions)
        self.objectives = list(objectives)
        self.constraint_names = list(constraint_names)
        with quiet_optuna():
            self.study = new_study(self.objectives, None, sampler)
        self._open: dict[int, Trial] = {}

    @classmethod
    def of(cls, job: Job, sampler: BaseSampler) -> StudyMirror:
        """The study of a job."""
        names = [(entry.name, entry.direction) for entry in job.objectives]
        measured = [entry.name for entry in job.objectives if not entry.predicted]
        return cls(sampler, job.space.distributions, names, job.constraint_names, measured)

    def ask(self) -> Asked:
        """The next setting to measure."""
        with quiet_optuna():
            trial = self.study.ask(self.distributions)
        self._open[trial.number] = trial
        return Asked(trial.number, dict(trial.params))

    def tell(self, asked: Asked, scores: Mapping[str, Score] | None, violations: Sequence[float]) -> None:
        """The outcome of a setting that was asked for; None for a failed one."""
        trial = self._open.pop(asked.number)
        with quiet_optuna():
            if scores is None:
                self.study.tell(trial, state=TrialState.FAIL)
                return
            for name, violation in zip(self.constraint_names, violations, strict=True):
                trial.set_constraint(name, violation)
            trial.set_user_attr(STANDARD_ERRORS, self._errors(scores))
            self.study.tell(trial, [scores[name].value for name, _ in self.objectives])

    def enqueue(self, settings: Iterable[Mapping[str, Any]]) -> None:
        """Settings that are asked for before any others."""
        with quiet_optuna():
            for setting in settings:
                self.study.enqueue_trial(dict(setting))

    def add(self, record: Record, violations: Sequence[float]) -> None:
        """A trial that an earlier process measured."""
        if record.parameters is not None:
            with quiet_optuna():
                self.study.add_trial(self.frozen(record, violations))

    def _errors(self, scores: Mapping[str, Score]) -> list[float | None]:
        """One standard error of every objective, where it is noise."""
        return [scores[name].error if name in self.measured else None for name, _ in self.objectives]

    def frozen(self, record: Record, violations: Sequence[float]) -> FrozenTrial:
        """A record as a finished trial."""
        failed = record.scores is None
        return optuna.trial.create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            values=None if failed else [record.values[name] for name, _ in self.objectives],
            params=dict(record.parameters or {}),
            distributions=self.distributions,
            user_attrs={
                "policy_id": record.policy.id,
                "fidelity": record.fidelity,
                "error": record.error,
                STANDARD_ERRORS: None if record.scores is None else self._errors(record.scores),
            },
            constraints=None if failed else dict(zip(self.constraint_names, violations, strict=True)),
        )


def new_study(
    objectives: Sequence[tuple[str, Direction]],
    storage: optuna.storages.BaseStorage | None,
    sampler: BaseSampler | None,
    name: str = STUDY_NAME,
) -> Study:
    """A study of named objectives; the one of that name, where the storage has it."""
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=sampler,
        directions=[direction for _, direction in objectives],
        load_if_exists=storage is not None,
    )
    study.set_metric_names([name for name, _ in objectives])
    return study
