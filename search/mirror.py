"""The Optuna study beside the log: proposes while the run lives, and is written to disk in batches for others to open."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from kneepoint.search.record import Record

STUDY_NAME = "kneepoint"


class StudyMirror:
    """An in-memory study that samplers work on.

    Args:
        sampler: Proposes settings.
        distributions: Of every parameter; the same in every trial.
        objectives: (name, direction) pairs, in the order of the values.
        constraint_names: Of the violations, in order.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        distributions: Mapping[str, BaseDistribution],
        objectives: Sequence[tuple[str, str]],
        constraint_names: Sequence[str] = (),
    ) -> None:
        self.distributions = dict(distributions)
        self.objectives = list(objectives)
        self.constraint_names = list(constraint_names)
        with quiet_optuna():
            self.study = _new_study(self.objectives, None, sampler)

    def ask(self) -> Trial:
        """The next setting to measure; its ``params`` are those of the space."""
        with quiet_optuna():
            return self.study.ask(self.distributions)

    def tell(self, trial: Trial, values: Mapping[str, float] | None, violations: Sequence[float]) -> None:
        """The outcome of a setting that was asked for; None for a failed one."""
        with quiet_optuna():
            if values is None:
                self.study.tell(trial, state=TrialState.FAIL)
                return
            for name, violation in zip(self.constraint_names, violations, strict=True):
                trial.set_constraint(name, violation)
            self.study.tell(trial, [values[name] for name, _ in self.objectives])

    def add(self, record: Record, violations: Sequence[float]) -> None:
        """A trial that an earlier process measured."""
        if record.parameters is not None:
            with quiet_optuna():
                self.study.add_trial(self._frozen(record, violations))

    def write(self, path: Path, records: Iterable[tuple[Record, Sequence[float]]]) -> None:
        """Rebuild the study file from the log; ``optuna-dashboard sqlite:///PATH`` opens it."""
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        with quiet_optuna():
            storage = optuna.storages.RDBStorage(f"sqlite:///{temporary}")
            try:
                study = _new_study(self.objectives, storage, None)
                study.add_trials([self._frozen(record, v) for record, v in records if record.parameters is not None])
            finally:
                storage.engine.dispose()
        temporary.replace(path)

    def _frozen(self, record: Record, violations: Sequence[float]) -> FrozenTrial:
        failed = record.scores is None
        return optuna.trial.create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            values=None if failed else [record.values[name] for name, _ in self.objectives],
            params=dict(record.parameters or {}),
            distributions=self.distributions,
            user_attrs={"policy_id": record.policy.id, "fidelity": record.fidelity, "error": record.error},
            constraints=None if failed else dict(zip(self.constraint_names, violations, strict=True)),
        )


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna logs every trial and warns of experimental features; kneepoint has its own display."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _new_study(
    objectives: Sequence[tuple[str, str]], storage: optuna.storages.BaseStorage | None, sampler: BaseSampler | None
) -> Study:
    study = optuna.create_study(
        study_name=STUDY_NAME,
        storage=storage,
        sampler=sampler,
        directions=[direction for _, direction in objectives],
    )
    study.set_metric_names([name for name, _ in objectives])
    return study
