"""Measuring in the search's own process, one candidate after the other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

from kneepoint.search.evaluator import Evaluator
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.worker_state import WorkerState
from kneepoint.tasks.errors import KneepointError


class InProcess:
    """Measures when it is waited for.

    Args:
        evaluator: Of the run.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._assignment: Assignment | None = None
        self._since = time.time()
        self._done = 0

    @property
    def room(self) -> int:
        """One, or none."""
        return int(self._assignment is None)

    def submit(self, assignment: Assignment) -> None:
        """Measured at the next wait."""
        self._assignment, self._since = assignment, time.time()

    def wait(self, seconds: float) -> list[Outcome]:
        """Measures what was submitted, however long that takes."""
        del seconds
        if self._assignment is None:
            return []
        outcome = self._measured(self._assignment)
        self._assignment, self._since = None, time.time()
        self._done += 1
        return [outcome]

    def _measured(self, assignment: Assignment) -> Outcome:
        policy, fidelity, race = assignment.policy, assignment.fidelity, assignment.race
        try:
            record = self._evaluator.evaluate(policy, fidelity, assignment.baseline, assignment.parameters, race)
        except KneepointError as error:
            return Outcome(assignment, error=error)
        return Outcome(assignment, record)

    def workers(self) -> Sequence[WorkerState]:
        """The process itself."""
        host, trial = socket.gethostname(), None if self._assignment is None else self._assignment.id
        state = WorkerState(
            f"{host}:{os.getpid()}", host, "measuring" if trial else "idle", trial, self._since, self._done
        )
        return [state]

    def close(self) -> None:
        """Nothing runs on."""
        self._assignment = None
