"""Run directories that hold what a test says, for views of where a run stands."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kneepoint.search.record import Fidelity, Record
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.metrics import Score

NOW = 1_700_000_000.0
HERE = socket.gethostname()
JOB = "schema: kneepoint.job/1\ntask_name: tiny\nworkers: {count: 2}\nray: null\nstorage: null\n"


def record(
    name: str,
    fidelity: Fidelity = "ptq",
    seconds: float = 2.0,
    ended: float = 0.0,
    worker: str = "there:worker-0",
    error: str | None = None,
) -> Record:
    policy = Policy.build("teacher", {}, {name: LayerPolicy.of_bits(8)})
    scores = {"accuracy": Score(0.5, 0.1)} if error is None else None
    return Record(policy, fidelity, scores, seconds, worker, error, ended=ended)


def worker(name: str, state: str = "idle", trial: str | None = None, since: float = NOW - 30) -> dict[str, Any]:
    return {"name": name, "node": name.partition(":")[0], "state": state, "trial": trial, "since": since, "done": 3}


def status(**changes: Any) -> dict[str, Any]:
    """The content of ``status.json``: a driver of this machine, at work for ten minutes until now."""
    return {
        "schema": "kneepoint.status/1",
        "driver": {"host": HERE, "pid": 1234567, "started": NOW - 600},
        "written": NOW,
        "ended": None,
        "stage": "searching",
        "done": 4,
        "total": 10,
        "seconds_left": 90.0,
        "best": {"accuracy": 0.9},
        "hypervolume": 0.25,
        "failed": 0,
        "workers": [],
        **changes,
    }


def small_run(
    path: Path,
    records: Sequence[Record] = (),
    status: dict[str, Any] | str | None = None,
    front: dict[str, Any] | str | None = None,
    job: str = JOB,
) -> Path:
    """A run directory with these files."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "job.yaml").write_text(job)
    (path / "trials.jsonl").write_text("".join(f"{one.to_line()}\n" for one in records))
    for name, content in (("status.json", status), ("front.json", front)):
        if content is not None:
            (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return path
