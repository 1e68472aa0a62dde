"""Where a run stands, from the files of its directory alone: read at any moment, and never written."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kneepoint.reports.run_state import State, StatusEntry, WorkerEntry, state_of
from kneepoint.reports.run_view import ALL, FrontFile
from kneepoint.reports.status_facts import (
    Failure,
    FidelityFacts,
    Labour,
    Pace,
    by_fidelity,
    failures_of,
    labour_of,
    pace_of,
    seconds_measuring,
)
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.tasks.errors import RunError

SCHEMA = "kneepoint.status_view/1"


@dataclass(frozen=True)
class WorkerFacts:
    """A worker, as its driver and the log know it.

    Attributes:
        name: Unique within the run.
        node: The machine it runs on; empty where only the log knows the worker.
        state: ``starting``, ``idle``, ``measuring`` or ``lost``; ``driver`` for the driver's own process, which says
            nothing while it measures; ``gone`` for one of an earlier process, or of a run that does not go on.
        trial: The id of what it measures, or measured when its driver was last heard of.
        seconds: For how long it does so, or had done so then; None where that is not known.
        done: Trials it ended since it was started; None where only the log knows it.
        trials: Its trials in the whole log.
        busy_seconds: That those took.
    """

    name: str
    node: str
    state: str
    trial: str | None
    seconds: float | None
    done: int | None
    trials: int
    busy_seconds: float


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        directory: The run directory.
        task: The name of its task.
        state: In a word, as :func:`kneepoint.reports.run_state.state_of` has it; also ``ended`` where there is no
            ``status.json`` and ``front.json`` is complete.
        reason: Why it failed, if its driver said so.
        looked: Unix time of these facts.
        driver: ``host``, ``pid`` and ``started`` of the last one; None where ``status.json`` is missing.
        written: Unix time at which the driver was last heard of.
        stage: What it did then.
        done: Steps of the stage that were done.
        total: Steps of the stage.
        seconds_left: Its estimate for the stage; None where the run does not go on.
        trials: By fidelity.
        failures: By reason, most frequent first.
        hypervolume: Of the front; None before there is one.
        best: The best value of each objective in the front.
        front_size: Candidates in the front.
        trials_a_minute: The pace.
        workers: Those of the driver, then those of earlier ones.
        share_measuring: Of the time of all workers since their driver began, how much they spent measuring, in [0, 1].
        notes: What is left out here, and why.
    """

    directory: str
    task: str
    state: State
    reason: str | None
    looked: float
    driver: dict[str, Any] | None
    written: float | None
    stage: str | None
    done: int | None
    total: int | None
    seconds_left: float | None
    trials: Mapping[str, FidelityFacts]
    failures: Sequence[Failure]
    hypervolume: float | None
    best: Mapping[str, float]
    front_size: int | None
    trials_a_minute: Pace
    workers: Sequence[WorkerFacts]
    share_measuring: float | None
    notes: Sequence[str]

    @property
    def goes_on(self) -> bool:
        """Whether there may be more to see later."""
        return _goes_on(self.state)

    @property
    def next_step(self) -> str:
        """What to do now, in words."""
        resume = f"'kneepoint resume {self.directory}' goes on"
        if self.state == "running":
            return f"'kneepoint status {self.directory} --watch 2' follows it"
        if self.state == "ended":
            return f"'kneepoint front {self.directory}' shows what it found"
        if self.state == "silent" and self.driver is not None:
            return f"if process {self.driver['pid']} is gone from {self.driver['host']}, {resume}"
        return f"{resume}, once that is mended" if self.state == "failed" else resume

    def to_json(self) -> dict[str, Any]:
        """All facts."""
        return {"schema": SCHEMA, **asdict(self), "next": self.next_step}


def status_of(directory: str | os.PathLike[str], now: float | None = None) -> RunStatus:
    """Look at a run, which may go on meanwhile.

    Args:
        directory: The run directory.
        now: Unix time; by default this machine's.

    Raises:
        RunError: If it is no run directory, or its trial log is malformed.
    """
    run = RunDirectory(Path(directory))
    job = run.read_job()
    now = time.time() if now is None else now
    state, status = state_of(run, now)
    front, records = _front(run), run.log().records  # read last, so that of an ended run they are what it left
    if state == "stopped" and front is not None and front.baselines:  # a search writes those last
        state = "ended"
    seen = now if _goes_on(state) else None
    return RunStatus(
        directory=str(directory),
        task=str(job.get("task_name") or job.get("task") or "a run"),
        state=state,
        reason=(status.ended or "").removeprefix("failed: ") if status and state == "failed" else None,
        looked=now,
        **_said(status, state),
        trials=by_fidelity(records),
        failures=failures_of(records),
        **_found(front, status),
        trials_a_minute=_pace(records, status, seen),
        workers=_workers(status, labour_of(records), seen),
        share_measuring=_share(records, status, job),
        notes=[*_malformed(run, status, front), *_elsewhere(job, records)],
    )


def _goes_on(state: State) -> bool:
    return state in ("running", "silent")


def _said(status: StatusEntry | None, state: State) -> dict[str, Any]:
    """The facts that the driver itself gave."""
    keys = ("driver", "written", "stage", "done", "total", "seconds_left")
    said: dict[str, Any] = dict.fromkeys(keys) if status is None else status.model_dump(include=set(keys))
    return said if _goes_on(state) else {**said, "seconds_left": None}


def _found(front: FrontFile | None, status: StatusEntry | None) -> dict[str, Any]:
    """The facts about the front: those of its file, which is written whenever it changes, or else the driver's."""
    if front is None:
        best, volume = (status.best, status.hypervolume) if status else ({}, None)
        return {"hypervolume": volume or None, "best": best, "front_size": None}
    ids = set(front.fronts[ALL])
    members = [one for one in front.candidates if one.id in ids]
    best = {
        entry.name: entry.sign * max(entry.sign * one.scores[entry.name].value for one in members)
        for entry in front.objectives
        if members
    }
    return {"hypervolume": front.hypervolume if members else None, "best": best, "front_size": len(members)}


def _front(run: RunDirectory) -> FrontFile | None:
    """``front.json``; None where there is none, or it is malformed."""
    try:
        return FrontFile.model_validate(run.read_front())
    except (RunError, ValidationError, RecursionError):
        return None


def _malformed(run: RunDirectory, status: StatusEntry | None, front: FrontFile | None) -> list[str]:
    read = {run.status_file: status, run.front_file: front}
    return [f"{path} is malformed, and left aside" for path, one in read.items() if one is None and path.exists()]


def _elsewhere(job: Mapping[str, Any], records: Sequence[Record]) -> list[str]:
    """Of a run whose log is a database, status.json and the front alone are at hand."""
    if job.get("storage") is None or records:
        return []
    return [f"the trials of this run are in {job['storage']}, which is not asked: they are not counted here"]


def _pace(records: Sequence[Record], status: StatusEntry | None, seen: float | None) -> Pace:
    until = seen if seen is not None else max((one.ended for one in records), default=0.0)
    return pace_of(records, until, status.driver.started if status else 0.0)


def _share(records: Sequence[Record], status: StatusEntry | None, job: Mapping[str, Any]) -> float | None:
    """Of the wall time of the driver times its workers; None where one of them is not known."""
    workers = len(status.workers) if status and status.workers else _wanted(job)
    if status is None or workers is None or status.written <= status.driver.started:
        return None
    since, until = status.driver.started, status.written
    under_way = [one.since for one in status.workers if one.state == "measuring" and one.since is not None]
    seconds = seconds_measuring(records, since, until) + sum(max(until - start, 0.0) for start in under_way)
    return min(1.0, seconds / (workers * (until - since)))


def _wanted(job: Mapping[str, Any]) -> int | None:
    """The number of workers that the job asks for; None on a cluster, where they come and go."""
    workers = job.get("workers")
    count = workers.get("count") if isinstance(workers, dict) and job.get("ray") is None else None
    return count if isinstance(count, int) and count > 0 else None


def _workers(status: StatusEntry | None, labour: Mapping[str, Labour], seen: float | None) -> list[WorkerFacts]:
    """The driver's workers, and those that only the log knows; ``seen`` is None where the run does not go on."""
    if status is None:
        return [_earlier(name, one, "gone") for name, one in labour.items()]
    own = f"{status.driver.host}:{status.driver.pid}"
    known = [_worker(entry, labour, own, status.written, seen) for entry in status.workers]
    names = {entry.name for entry in status.workers}
    others = sorted((name for name in labour if name not in names), key=lambda name: name != own)
    states = {own: "gone" if seen is None else "driver"}  # it measures the teacher
    return known + [_earlier(name, labour[name], states.get(name, "gone")) for name in others]


def _worker(
    entry: WorkerEntry, labour: Mapping[str, Labour], own: str, written: float, seen: float | None
) -> WorkerFacts:
    state = "gone" if seen is None else "driver" if entry.name == own else entry.state
    until = written if seen is None else seen
    is_at_it = entry.trial is not None if state == "gone" else state != "driver"
    seconds = max(until - entry.since, 0.0) if is_at_it and entry.since is not None else None
    one = labour.get(entry.name, Labour(0, 0.0))
    return WorkerFacts(entry.name, entry.node, state, entry.trial, seconds, entry.done, one.trials, one.seconds)


def _earlier(name: str, one: Labour, state: str) -> WorkerFacts:
    return WorkerFacts(name, "", state, None, None, None, one.trials, one.seconds)
