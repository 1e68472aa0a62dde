"""What a worker does: a module of its own, because the hub on a cluster needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
