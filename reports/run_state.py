"""Whether a run goes on, has ended, or was killed: what its driver said last, and whether it is still there."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from kneepoint.reports.run_view import Entry
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.status_file import read_status

STALE = 60.0
"""Seconds of silence after which a driver on another machine may be gone."""
State = Literal["running", "ended", "failed", "interrupted", "killed", "silent", "stopped"]
_Time = Annotated[float, Field(ge=0, le=1e11)]


class DriverEntry(Entry):
    """The process that runs a search, and the Unix time at which it began."""

    host: str
    pid: int
    started: _Time


class WorkerEntry(Entry):
    """What a worker did when its driver last said so: :class:`kneepoint.search.workers.executor.WorkerState`."""

    name: str
    node: str
    state: str
    trial: str | None = None
    since: _Time | None = None
    done: int = 0


class StatusEntry(Entry):
    """The whole of ``status.json``: :class:`kneepoint.search.status_file.StatusFile`."""

    driver: DriverEntry
    written: _Time
    ended: str | None
    stage: str | None = None
    done: int | None = None
    total: int | None = None
    seconds_left: float | None = None
    best: dict[str, float] = Field(default_factory=dict)
    hypervolume: float | None = None
    workers: list[WorkerEntry] = Field(default_factory=list)


def status_entry(path: Path) -> StatusEntry | None:
    """What ``status.json`` says; None where there is none, or it is malformed."""
    try:
        content = read_status(path)
        return None if content is None else StatusEntry.model_validate(content)
    except (ValidationError, RecursionError):
        return None


def state_of(run: RunDirectory, now: float) -> tuple[State, StatusEntry | None]:
    """Where a run stands in a word, and what its driver said last.

    A driver that said how the run ended is taken at its word. Otherwise the state is ``running`` while it is there,
    ``killed`` if it is gone, and ``silent`` if it is on another machine and was not heard of for ``STALE`` seconds. A
    run without ``status.json``, which has just begun or is an old one, is ``running`` or ``stopped``.

    Args:
        run: Its directory.
        now: Unix time.
    """
    status = status_entry(run.status_file)
    state = _state(run, status, now)
    if state in ("killed", "stopped"):  # or its driver ended, or wrote its first word, between the two looks
        status = status_entry(run.status_file)
        state = _state(run, status, now)
    return state, status


def is_locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a run; None where that cannot be told.

    It is found out by a shared lock, which is given up at once: a driver would have to start within these microseconds
    to be refused.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(file)
    return False


def _state(run: RunDirectory, status: StatusEntry | None, now: float) -> State:
    if status is not None and status.ended is not None:
        return _said(status.ended)
    locked = is_locked(run.path / "run.lock")
    if locked:
        return "running"
    if status is None:
        return "stopped"
    if locked is False and status.driver.host == socket.gethostname():
        return "killed"
    # Locks may not reach from machine to machine.
    return "running" if now - status.written <= STALE else "silent"


def _said(ended: str) -> State:
    if ended == "done":
        return "ended"
    return "interrupted" if ended == "interrupted" else "failed"
