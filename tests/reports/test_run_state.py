"""Whether a run goes on: a real driver that is watched and killed, locks of other processes, hosts far away."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kneepoint.reports.run_state import is_locked, state_of, status_entry
from kneepoint.reports.run_status import status_of
from kneepoint.search.run_directory import RunDirectory
from kneepoint.tasks.errors import RunError
from tests.reports.small_run import NOW, small_run, status

ROOT = Path(__file__).parents[2]
# Hangs after its fourth candidate; what it said last is of the third.
DRIVER = """
import sys, time
from pathlib import Path
from tests.search import tiny_problem

def observer(status):
    if (status.stage, status.done) == ("searching", 3):
        time.sleep(1.1)  # until status.json is due again
    if (status.stage, status.done) == ("searching", 4):
        print("hanging", flush=True)
        time.sleep(600)

job = tiny_problem.job(tiny_problem.space(students=None), sampler="random")
tiny_problem.run(job, Path(sys.argv[1]), observer)
"""
HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
time.sleep(600)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program and waits for its first line."""
    processes: list[subprocess.Popen[str]] = []

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline()
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def state(path: Path, now: float = NOW) -> str:
    return state_of(RunDirectory(path), now)[0]


def test_a_driver_at_work_and_then_killed(start: Start, tmp_path: Path) -> None:
    driver = start(DRIVER, tmp_path / "run")
    with (tmp_path / "run" / "trials.jsonl").open("a") as log:
        log.write('{"id": "torn')
    facts = status_of(tmp_path / "run")
    assert (facts.state, facts.task, facts.goes_on) == ("running", "tiny", True)
    assert facts.driver is not None
    assert facts.driver["pid"] == driver.pid
    assert (facts.stage, facts.done, facts.total) == ("searching", 3, 8)
    assert facts.trials["ptq"].trials == 5  # the teacher, too
    front = json.loads((tmp_path / "run" / "front.json").read_text())
    assert (facts.front_size, facts.hypervolume) == (len(front["fronts"]["all"]), front["hypervolume"])
    assert facts.best.keys() == {"accuracy", "latency_ms@raspberry-pi-4b", "size_mb"}
    assert facts.trials_a_minute.all is not None
    assert [(one.state, one.trials) for one in facts.workers] == [("driver", 5)]
    assert facts.share_measuring is not None
    assert 0 < facts.share_measuring <= 1
    assert "--watch" in facts.next_step
    driver.kill()
    driver.wait()
    facts = status_of(tmp_path / "run")
    assert (facts.state, facts.seconds_left, facts.trials["ptq"].trials) == ("killed", None, 5)
    assert [one.state for one in facts.workers] == ["gone"]
    assert facts.next_step == f"'kneepoint resume {tmp_path / 'run'}' goes on"


def test_a_lock_that_another_process_holds(start: Start, tmp_path: Path) -> None:
    small_run(tmp_path, status=status())
    assert (is_locked(tmp_path / "run.lock"), state(tmp_path)) == (False, "killed")
    holder = start(HOLDER, tmp_path / "run.lock")
    assert (is_locked(tmp_path / "run.lock"), state(tmp_path)) == (True, "running")
    holder.kill()
    holder.wait()
    assert (is_locked(tmp_path / "run.lock"), state(tmp_path)) == (False, "killed")


def test_a_look_leaves_the_lock_to_the_driver(tmp_path: Path) -> None:
    small_run(tmp_path, status=status())
    before = {path.name for path in tmp_path.iterdir()}
    status_of(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before
    run = RunDirectory(tmp_path)
    run.lock()
    assert state(tmp_path) == "running"  # also in the driver's own process
    with pytest.raises(RunError, match=r"another process .*is at work"):
        RunDirectory(tmp_path).lock()
    run.unlock()
    assert state(tmp_path) == "killed"
    run.lock()
    run.unlock()


def test_a_run_that_ended_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_run(tmp_path, status=status())

    def ends_now(path: Path) -> bool:
        (tmp_path / "status.json").write_text(json.dumps(status(ended="done")))
        return is_locked(path) or False

    monkeypatch.setattr("kneepoint.reports.run_state.is_locked", ends_now)
    assert state(tmp_path) == "ended"


@pytest.mark.parametrize(
    ("ended", "expected"),
    [("done", "ended"), ("interrupted", "interrupted"), ("failed: no teacher", "failed"), ("odd", "failed")],
)
def test_what_the_driver_said_at_its_end(tmp_path: Path, ended: str, expected: str) -> None:
    small_run(tmp_path, status=status(ended=ended))
    run = RunDirectory(tmp_path)
    run.lock()  # the report is being written
    assert state(tmp_path) == expected
    run.unlock()
    assert state(tmp_path) == expected


@pytest.mark.parametrize(("age", "expected"), [(-5.0, "running"), (59.0, "running"), (61.0, "silent")])
def test_a_driver_on_another_host_is_known_by_its_signs_of_life(tmp_path: Path, age: float, expected: str) -> None:
    driver = {"host": "far-away", "pid": 7, "started": NOW - 600}
    small_run(tmp_path, status=status(driver=driver, written=NOW - age))
    (tmp_path / "run.lock").touch()
    assert state(tmp_path) == expected


def test_a_lock_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    small_run(tmp_path, status=status())
    (tmp_path / "run.lock").touch()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert is_locked(tmp_path / "run.lock") is None
    assert (state(tmp_path), state(tmp_path, NOW + 61)) == ("running", "silent")
    (tmp_path / "run.lock").unlink()
    (tmp_path / "run.lock").symlink_to("run.lock")
    assert is_locked(tmp_path / "run.lock") is None


def test_a_run_that_has_not_said_anything(tmp_path: Path) -> None:
    small_run(tmp_path)
    assert state(tmp_path) == "stopped"
    run = RunDirectory(tmp_path)
    run.lock()
    assert state(tmp_path) == "running"
    run.unlock()


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"schema": "kneepoint.status/1", "driver"',
        "[" * 100_000,
        "[1]",
        status(schema="kneepoint.status/2"),
        status(driver=None),
        status(driver={"host": "a", "pid": "b", "started": 0.0}),
        status(written="yesterday"),
        status(written=1e300),
        status(written=-1.0),
        status(ended=3),
        status(best={"accuracy": "good"}),
        status(workers=[3]),
        json.dumps(status(hypervolume=float("nan"))),
    ],
)
def test_a_malformed_file_says_nothing(tmp_path: Path, content: Any) -> None:
    small_run(tmp_path, status=content)
    assert status_entry(tmp_path / "status.json") is None
    assert state(tmp_path) == "stopped"


def test_the_real_clock_is_the_default(tmp_path: Path) -> None:
    driver = {"host": "far-away", "pid": 7, "started": 0.0}
    small_run(tmp_path, status=status(driver=driver, written=time.time()))
    assert status_of(tmp_path).state == "running"
