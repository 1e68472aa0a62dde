"""The program of a worker process: measures what it is handed through a pipe, until the pipe ends.

Its first argument is the file descriptor of the pipe. Messages to it are a :class:`Setup`, then assignments; those from
it are pairs of a word and what belongs to it: ``ready``, ``broken`` (why it cannot work), ``sign`` (what a long step
does), ``ended`` (a record) and ``wrong`` (what is wrong with the job).
"""

from __future__ import annotations

import os
import queue
import resource
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from mmap import PROT_READ, mmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kneepoint.search.evaluator import Evaluator
from kneepoint.search.workers.assignment import Assignment
from kneepoint.search.workers.payload import unpacked
from kneepoint.tasks.errors import KneepointError

_SECONDS_BETWEEN_SIGNS = 0.2


@dataclass(frozen=True)
class Setup:
    """What a worker process is told before it begins.

    Attributes:
        name: Of the worker, for records.
        search_path: Where the search's own process looks for modules.
        payload: The evaluator is here: a file descriptor.
        directory: The run directory, if it is another one than the evaluator knows.
        memory_bytes: That the process may ask for; None for no limit.
    """

    name: str
    search_path: list[str]
    payload: int
    directory: Path | None = None
    memory_bytes: int | None = None


def main() -> None:
    """Measure until the pipe ends."""
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    setup: Setup = unpacked(connection.recv_bytes())
    try:
        evaluator = _prepared(setup, connection)
    except BaseException as failure:
        connection.send(("broken", f"{type(failure).__name__}: {failure}"))
        raise
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    connection.send(("ready", None))
    while True:
        connection.send(_measured(evaluator, unpacked(inbox.get()), setup.name))


def _prepared(setup: Setup, connection: Connection[Any, Any]) -> Evaluator:
    sys.path[:] = setup.search_path
    if setup.memory_bytes is not None:
        # Of its data alone: libraries map many times what they use.
        resource.setrlimit(resource.RLIMIT_DATA, (setup.memory_bytes, setup.memory_bytes))
    with mmap(setup.payload, 0, prot=PROT_READ) as payload:  # every worker reads the same pages
        evaluator: Evaluator = unpacked(payload)
    if setup.directory is not None:
        evaluator.directory = setup.directory
    evaluator.report = _Signs(connection)
    return evaluator


class _Signs:
    """Passes on what long steps report, but not more often than anybody could read."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._last = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_SIGNS or done == total:
            self._last = now
            self._connection.send(("sign", (what, done, total)))


def _listen(connection: Connection[Any, Any], inbox: queue.SimpleQueue[bytes]) -> None:
    """Pass on assignments; when the search is gone, so is its worker, whatever it is doing."""
    with suppress(EOFError, OSError):
        while True:
            inbox.put(connection.recv_bytes())
    os._exit(0)


def _measured(evaluator: Evaluator, assignment: Assignment, worker: str) -> tuple[str, object]:
    try:
        record = evaluator.evaluate(
            assignment.policy,
            assignment.fidelity,
            assignment.baseline,
            assignment.parameters,
            assignment.race,
            worker=worker,
        )
    except KneepointError as error:
        return "wrong", error
    return "ended", record


if __name__ == "__main__":
    main()
