"""The seam between a search and where its candidates are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.worker_state import WorkerState


class Executor(Protocol):
    """Measures assignments, in any order."""

    @property
    def room(self) -> int:
        """Assignments that may be submitted now, beyond those that are under way."""

    def submit(self, assignment: Assignment) -> None:
        """Have it measured; there must be room."""

    def wait(self, seconds: float) -> list[Outcome]:
        """What ended; empty if nothing did for so long.

        Raises:
            JobFailed: If no worker can work.
        """

    def workers(self) -> Sequence[WorkerState]:
        """All of them."""

    def close(self) -> None:
        """Stop them; what is under way is given up."""
