"""The run's Optuna study on disk, ``study.db`` or a database, for others to open: follows the log at its own pace."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import optuna
from optuna.study import Study
from sqlalchemy.exc import SQLAlchemyError

from kneepoint.search.job import Job
from kneepoint.search.mirror import STUDY_NAME, StudyMirror, new_study
from kneepoint.search.quiet import quiet_optuna
from kneepoint.search.record import Record
from kneepoint.search.storage_url import without_password
from kneepoint.tasks.errors import RunError

_DUTY = 0.1
"""The share of time that mirroring may take while a search goes on: a trial of many parameters takes Optuna 20 ms."""
_AT_THE_END = 120.0
"""Seconds after which what is left is left to the next resume."""

_Told = tuple[Record, Sequence[float]]


class NoStudy:
    """Where another driver keeps the study."""

    left_out = 0

    def add(self, record: Record, violations: Sequence[float]) -> None:
        """Nothing."""


class StudyFile:
    """A thread that tells trials to a stored study: each policy once, in the log's order. A context manager.

    What it cannot write it says at the end, because the log is the truth and the study can be made again from it.

    Args:
        job: Of the run.
        url: Of the study's storage.
        name: Of the study.

    Attributes:
        left_out: Trials for which there was no time at the end.
    """

    def __init__(self, job: Job, url: str, name: str = STUDY_NAME) -> None:
        self._mirror = StudyMirror.of(job, optuna.samplers.RandomSampler(0))
        self._url = url
        self._name = name
        self._file: Path | None = None
        self._queue: queue.SimpleQueue[_Told | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._hurry = False
        self._deadline = float("inf")
        self.left_out = 0
        self._thread: threading.Thread | None = None

    @classmethod
    def at(cls, path: Path, job: Job) -> StudyFile:
        """The study in a SQLite file."""
        study = cls(job, f"sqlite:///{path}")
        study._file = path
        return study

    def __enter__(self) -> StudyFile:
        try:
            with quiet_optuna():  # in the caller's thread: what is quiet is so for the whole process
                storage = self._storage()
                study = new_study(self._mirror.objectives, storage, None, self._name)
        except Exception as error:  # the database raises types of its own
            self._failure = error
        else:
            self._thread = threading.Thread(target=self._follow, args=(study, storage), daemon=True, name="study-file")
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write what is left.

        Raises:
            RunError: If the study cannot be written; not where the search ends with an error of its own.
        """
        self._hurry, self._deadline = True, time.monotonic() + _AT_THE_END
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None and error is None:
            reason = (str(self._failure).splitlines() or [type(self._failure).__name__])[0]
            where = self._file or without_password(self._url)
            raise RunError(f"cannot write {where}: {reason}; make room and resume the run") from self._failure

    def add(self, record: Record, violations: Sequence[float]) -> None:
        """Have a proposal's record mirrored; others are left out."""
        if record.parameters is not None and record.fidelity == "ptq":
            self._queue.put((record, violations))

    def _follow(self, study: Study, storage: optuna.storages.RDBStorage) -> None:
        try:
            self._mirrored(study)
        except (SQLAlchemyError, OSError, optuna.exceptions.OptunaError, ValueError) as error:
            self._failure = error
        finally:
            storage.engine.dispose()

    def _storage(self) -> optuna.storages.RDBStorage:
        """The study's storage; a file that is no study any more is made anew."""
        try:
            return optuna.storages.RDBStorage(self._url)
        except Exception:  # the database raises types of its own
            if self._file is None or not self._file.exists():
                raise
            self._file.unlink()
            return optuna.storages.RDBStorage(self._url)

    def _mirrored(self, study: Study) -> None:
        known = {trial.user_attrs.get("policy_id") for trial in study.get_trials(deepcopy=False)}
        while (told := self._queue.get()) is not None:
            start = time.monotonic()
            if start > self._deadline:
                self.left_out += 1
            elif told[0].policy.id not in known:
                known.add(told[0].policy.id)
                study.add_trial(self._mirror.frozen(*told))
            self._rest(time.monotonic() - start)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds * (1 / _DUTY - 1)
        while not self._hurry and time.monotonic() < until:
            time.sleep(min(0.05, max(until - time.monotonic(), 0.0)))
