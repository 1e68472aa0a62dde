"""``status.json``: where a run stands, for whoever looks in from outside."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kneepoint.compression.student_store import write_atomically
from kneepoint.search.progress import Status
from kneepoint.search.workers.worker_state import WorkerState

SCHEMA = "kneepoint.status/1"
_EVERY = 1.0


class StatusFile:
    """Written anew at every change of stage, and otherwise once a second at most; never the reason that a run ends.

    Its keys: ``driver`` (``host``, ``pid``, ``started``), ``written`` (Unix times, seconds), ``stage``, ``done``,
    ``total``, ``seconds_left``, ``best``, ``hypervolume``, ``failed``, ``workers`` (:class:`WorkerState` each), and
    ``ended``: null while the run goes on, else ``done``, ``interrupted`` or ``failed: REASON``.

    Args:
        path: The file.
        workers: Tells what every worker does.
    """

    def __init__(self, path: Path, workers: Callable[[], Sequence[WorkerState]]) -> None:
        self._path = path
        self._workers = workers
        self._driver = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
        self._written = 0.0
        self._last: Status | None = None

    def update(self, status: Status) -> None:
        """Note where the run stands."""
        moved = self._last is None or status.stage != self._last.stage
        self._last = status
        if moved or time.monotonic() - self._written >= _EVERY:
            self._write(None)

    def end(self, how: str) -> None:
        """Note how the run ended."""
        self._write(how)

    def _write(self, ended: str | None) -> None:
        self._written = time.monotonic()
        status: dict[str, Any] = {} if self._last is None else asdict(self._last)
        content = {
            "schema": SCHEMA,
            "driver": self._driver,
            "written": time.time(),
            "ended": ended,
            **status,
            "workers": [asdict(state) for state in self._workers()],
        }
        with suppress(OSError, ValueError):  # a full disk stops what matters, and says so there
            write_atomically(self._path, json.dumps(content, allow_nan=False).encode())


def read_status(path: Path) -> dict[str, Any] | None:
    """What a :class:`StatusFile` wrote; None where there is none, or it is not whole."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("schema") == SCHEMA else None
