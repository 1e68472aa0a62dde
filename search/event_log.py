"""What happens during a run, a line of JSON an event, for people and programs that look into it later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kneepoint.search.record import Record
from kneepoint.search.workers.assignment import Assignment


class EventLog:
    """Lines ``{"time", "level", "event", ...}`` at the end of a file; those about a trial have its id as ``trial``.

    It is for reading, not for resuming: an event that cannot be written is dropped.

    Args:
        path: The file; made by the first event.
        told: Called with every new record.
    """

    def __init__(self, path: Path, told: Callable[[Record], None] | None = None) -> None:
        self._path = path
        self._told = told

    def started(self, assignment: Assignment) -> None:
        """An assignment was handed out."""
        self.write("trial started", trial=assignment.id, baseline=assignment.baseline)

    def ended(self, record: Record) -> None:
        """An assignment is in the log."""
        facts: dict[str, Any] = {"trial": record.id, "worker": record.worker, "seconds": round(record.seconds, 3)}
        if record.error is not None:
            self.write("trial failed", "warning", **facts, reason=record.error)
        else:
            self.write("trial ended", **facts, scores=record.values)
        if self._told is not None:
            self._told(record)

    def lost(self, assignment: Assignment, reason: str, again: bool) -> None:
        """A worker was lost, and what it measured with it."""
        self.write("trial lost", "warning", trial=assignment.id, reason=reason, again=again)

    def write(self, event: str, level: str = "info", **facts: Any) -> None:
        """Append one line."""
        line = json.dumps({"time": _now(), "level": level, "event": event, **facts}, default=str)
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _now() -> str:
    """UTC, to the millisecond, as ISO 8601 has it."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03}Z"
