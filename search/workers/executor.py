"""The seam between a search and where its candidates are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kneepoint.search.workers.assignment import Assignment, Outcome

State = Literal["starting", "idle", "measuring", "lost"]


@dataclass(frozen=True)
class WorkerState:
    """What a worker does now.

    Attributes:
        name: Unique within the run.
        node: The machine it runs on.
        state: What it does.
        trial: The id of what it measures, or None.
        since: Unix time at which it began to.
        done: Measurements it ended.
    """

    name: str
    node: str
    state: State
    trial: str | None = None
    since: float | None = None
    done: int = 0


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
