"""Worker processes of this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from kneepoint.search.evaluator import Evaluator
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.payload import packed
from kneepoint.search.workers.settings import Workers
from kneepoint.search.workers.worker_process import Signal, WorkerProcess
from kneepoint.search.workers.worker_state import WorkerState

_LOOK_EVERY = 0.5
"""Seconds between two looks for processes that hang."""


class LocalWorkers:
    """Processes that measure at the same time; one that dies or hangs is replaced.

    Processes start when there is something to measure. The job travels to each through a file that has no name.

    Args:
        payload: The pickled evaluator.
        settings: How many, and what each may use.
        threads: Of each.
        directory: The run directory, if it is another one than the evaluator knows.
        logs: A folder for their output; None for the search's standard error.
        report: Told of long steps.
        prefix: Of their names.
    """

    def __init__(
        self,
        payload: bytes | memoryview,
        settings: Workers,
        threads: int,
        directory: Path | None = None,
        logs: Path | None = None,
        report: Signal | None = None,
        prefix: str = "worker-",
    ) -> None:
        self._settings = settings
        self._threads = threads
        self._directory = directory
        self._logs = logs
        self._report = report
        self._prefix = prefix
        self._processes: dict[int, WorkerProcess] = {}
        self._payload = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the workers
        self._payload.write(payload)
        self._payload.flush()
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(
        cls, evaluator: Evaluator, settings: Workers, logs: Path | None = None, report: Signal | None = None
    ) -> LocalWorkers:
        """Workers that measure as ``evaluator`` does.

        Raises:
            JobError: If the job cannot be pickled.
        """
        return cls(packed(evaluator), settings, evaluator.threads, logs=logs, report=report)

    @property
    def room(self) -> int:
        """Workers that have nothing to do, or were not needed yet."""
        return self._settings.count - sum(one.assignment is not None for one in self._processes.values())

    def submit(self, assignment: Assignment) -> None:
        """Hand it to the first worker that is free."""
        free = (number for number, one in self._processes.items() if one.assignment is None)
        number = next(free, None)
        if number is None:
            number = next(place for place in range(self._settings.count) if place not in self._processes)
            self._processes[number] = self._started(number)
        self._processes[number].assign(assignment)

    def wait(self, seconds: float) -> list[Outcome]:
        """What ended, or was given up."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            ended = self._heard(min(max(left, 0.0), _LOOK_EVERY)) + self._given_up()
            if ended or left <= 0 or not any(one.assignment for one in self._processes.values()):
                return ended

    def workers(self) -> Sequence[WorkerState]:
        """Those that were started."""
        return [one.state for _, one in sorted(self._processes.items())]

    def close(self) -> None:
        """Kill all of them."""
        for process in self._processes.values():
            process.kill()
        self._processes = {}
        self._payload.close()

    def _heard(self, seconds: float) -> list[Outcome]:
        """What the processes have to say."""
        numbers: dict[Any, int] = {one.connection: number for number, one in self._processes.items()}
        outcomes = []
        for connection in wait_for(list(numbers), seconds):
            number = numbers[connection]
            outcome = self._processes[number].receive()
            if outcome is not None:
                outcomes.append(outcome)
            if not self._processes[number].is_alive:
                del self._processes[number]
        return outcomes

    def _given_up(self) -> list[Outcome]:
        """Those of processes that hang or take too long; one that is still loading the job does neither."""
        reasons = {number: self._reason_against(one) for number, one in self._processes.items()}
        return [self._processes.pop(number).give_up(reason) for number, reason in reasons.items() if reason]

    def _reason_against(self, process: WorkerProcess) -> str | None:
        """Why a process is not waited for any longer, if it is not."""
        settings = self._settings
        if process.assignment is None or not process.is_ready:
            return None
        if settings.silence_seconds is not None and process.silent_for > settings.silence_seconds:
            limit, of = settings.silence_seconds, "no sign of progress for {:g} s (workers.silence_seconds)"
        elif settings.timeout_seconds is not None and process.busy_for > settings.timeout_seconds:
            limit, of = settings.timeout_seconds, "not measured after {:g} s (workers.timeout_seconds)"
        else:
            return None
        return f"TimeoutError: {of.format(limit)}, so it was stopped"

    def _started(self, number: int) -> WorkerProcess:
        name = f"{self._prefix}{number}"
        memory = self._settings.memory_gb
        return WorkerProcess(
            name,
            self._payload,
            self._threads,
            self._directory,
            None if memory is None else int(memory * 1e9),
            None if self._logs is None else self._logs / f"{name}.log",
            self._report,
        )
