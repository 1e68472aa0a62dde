"""One worker process, seen from the search: started, handed assignments, watched, and killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any

from kneepoint.search.record import Record
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.payload import packed
from kneepoint.search.workers.worker_main import Setup
from kneepoint.search.workers.worker_state import State, WorkerState
from kneepoint.tasks.errors import JobFailed

Signal = Callable[[str, int, int], None]
_KILLED_AFTER = 5.0


class WorkerProcess:
    """A process of its own: what a candidate does there, to memory or to itself, does not reach the search.

    Args:
        name: Unique within the run.
        payload: A file that holds the pickled evaluator.
        threads: Of its libraries.
        directory: The run directory, if it is another one than the evaluator knows.
        memory_bytes: That it may ask for; None for no limit.
        output: Where its output goes; None for the search's own standard error.
        report: Told of long steps.

    Attributes:
        connection: To wait for.
        assignment: What it measures now, or None.
        is_ready: Whether it has begun to work.
        is_alive: Whether it has not ended, as far as was heard.
    """

    def __init__(
        self,
        name: str,
        payload: IO[bytes],
        threads: int,
        directory: Path | None = None,
        memory_bytes: int | None = None,
        output: Path | None = None,
        report: Signal | None = None,
    ) -> None:
        self.name = f"{socket.gethostname()}:{name}"
        self.assignment: Assignment | None = None
        self.is_ready = False
        self.is_alive = True
        self._report = report
        self._since = self._last_sign = time.monotonic()
        self._began = time.time()
        self._done = 0
        self.connection, theirs = Pipe()
        setup = Setup(self.name, list(sys.path), payload.fileno(), directory, memory_bytes)
        self._process = _start(theirs, payload, threads, output)
        theirs.close()
        self.connection.send_bytes(packed(setup))

    @property
    def state(self) -> WorkerState:
        """What it does now."""
        busy = self.assignment is not None
        state: State = "starting" if not self.is_ready else "measuring" if busy else "idle"
        trial = None if self.assignment is None else self.assignment.id
        return WorkerState(self.name, socket.gethostname(), state, trial, self._began, self._done)

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign of progress."""
        return time.monotonic() - self._last_sign

    @property
    def busy_for(self) -> float:
        """Seconds since it could begin with its assignment."""
        return time.monotonic() - self._since

    def assign(self, assignment: Assignment) -> None:
        """Have it measured next."""
        self.assignment = assignment
        self._since = self._last_sign = time.monotonic()
        self._began = time.time()
        try:
            self.connection.send_bytes(packed(assignment))
        except OSError:  # it has just died: the next look at the connection says so
            return

    def receive(self) -> Outcome | None:
        """Read one message; an outcome if a measurement ended, also because the process did.

        Raises:
            JobFailed: If the process cannot work at all.
        """
        try:
            word, content = self.connection.recv()
        except (EOFError, OSError):
            return self._died()
        self._last_sign = time.monotonic()
        if word == "broken":
            raise JobFailed(f"a worker process cannot load the job: {content}")
        if word == "sign" and self._report is not None:
            self._report(*content)
        if word == "ready":
            self.is_ready, self._began = True, time.time()
            self._since = time.monotonic()
        return self._ended(word, content) if word in ("ended", "wrong") else None

    def give_up(self, reason: str) -> Outcome:
        """Kill the process, and count its assignment as failed."""
        assignment = self._let_go()
        self.kill()
        record = Record(
            assignment.policy,
            assignment.fidelity,
            None,
            time.monotonic() - self._since,
            self.name,
            error=reason,
            baseline=assignment.baseline,
            parameters=assignment.parameters,
        )
        return Outcome(assignment, record)

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self.connection.close()
        self._process.kill()
        self._process.wait(_KILLED_AFTER)

    def _ended(self, word: str, content: Any) -> Outcome:
        assignment = self._let_go()
        self._done += 1
        return Outcome(assignment, record=content) if word == "ended" else Outcome(assignment, error=content)

    def _died(self) -> Outcome | None:
        self.is_alive = False
        self.connection.close()
        try:
            code = self._process.wait(_KILLED_AFTER)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self.assignment is None:
            return None
        return Outcome(self._let_go(), lost=f"its worker process ended: {_of_code(code)}")

    def _let_go(self) -> Assignment:
        assignment, self.assignment = self.assignment, None
        if assignment is None:
            raise JobFailed(f"worker process {self.name} answered what it was not asked")
        self._began = time.time()
        return assignment


def _start(
    theirs: Connection[Any, Any], payload: IO[bytes], threads: int, output: Path | None
) -> subprocess.Popen[bytes]:
    """The process, in a session of its own: Ctrl-C in a terminal is the search's to handle."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "kneepoint.search.workers.worker_main", str(theirs.fileno())]
    log = None if output is None else output.open("ab")
    try:
        return subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=log or sys.stderr,
            stderr=log or sys.stderr,
            pass_fds=(theirs.fileno(), payload.fileno()),
            start_new_session=True,
            env=environment,
        )
    finally:
        if log is not None:
            log.close()


def _of_code(code: int) -> str:
    """What an exit code says."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name
