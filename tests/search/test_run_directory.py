"""A run directory holds one job, and lets one process in."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kneepoint.search.run_directory import RunDirectory
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import RunError
from tests.search import tiny_problem

HOLD = """
import sys, time, pathlib
from kneepoint.search.run_directory import RunDirectory
held = RunDirectory(pathlib.Path(sys.argv[1]))
held.lock()
print("locked", flush=True)
time.sleep(20)
"""


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def opened(path: Path, joint: JointSpace, **changes: object) -> bool:
    directory = RunDirectory(path)
    try:
        return directory.open_for(tiny_problem.job(joint, **changes))
    finally:
        directory.unlock()


def test_a_new_folder_is_made_and_opened_again(tmp_path: Path, joint: JointSpace) -> None:
    assert opened(tmp_path / "a" / "b", joint) is False
    assert opened(tmp_path / "a" / "b", joint) is True
    assert RunDirectory(tmp_path / "a" / "b").read_job()["schema"] == "kneepoint.job/1"


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 3}, "seed"), ({"constraints": ["size_mb <= 1"]}, "constraints"), ({"threads": 2}, "threads")],
)
def test_another_job_is_refused_and_nothing_touched(
    tmp_path: Path, joint: JointSpace, change: dict[str, object], named: str
) -> None:
    opened(tmp_path, joint)
    before = snapshot(tmp_path)
    with pytest.raises(RunError, match=rf"holds the run of another job \({named} differs\)"):
        opened(tmp_path, joint, **change)
    assert snapshot(tmp_path) == before


def test_budgets_and_sampler_may_change(tmp_path: Path, joint: JointSpace) -> None:
    opened(tmp_path, joint)
    assert opened(tmp_path, joint, trials=99, minutes=3.0, sampler="random") is True
    assert RunDirectory(tmp_path).read_job()["trials"] == 99


def test_a_folder_of_other_things_is_refused_and_untouched(tmp_path: Path, joint: JointSpace) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    before = snapshot(tmp_path)
    with pytest.raises(RunError, match="is not empty and holds no run"):
        opened(tmp_path, joint)
    assert snapshot(tmp_path) == before
    with pytest.raises(RunError, match="is a file"):
        opened(tmp_path / "thesis.tex", joint)


def test_what_a_start_that_was_killed_left_is_no_obstacle(tmp_path: Path, joint: JointSpace) -> None:
    (tmp_path / "run.lock").touch()
    (tmp_path / ".job.yaml.12ab").write_text("sche")
    assert opened(tmp_path, joint) is False


@pytest.mark.parametrize("text", ["{", "- 1", "schema: kneepoint.job/2", ""])
def test_a_foreign_job_file_is_refused(tmp_path: Path, joint: JointSpace, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(RunError, match=r"job.yaml must"):
        opened(tmp_path, joint)
    assert snapshot(tmp_path) == {str(tmp_path / "job.yaml"): text.encode()}


def test_another_process_is_refused_while_the_first_lives_and_takes_over_when_it_died(
    tmp_path: Path, joint: JointSpace
) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match=r"another process \(pid \d+ on .*\) is at work in"):
            opened(tmp_path, joint)
        assert not (tmp_path / "job.yaml").exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert opened(tmp_path, joint) is False


def test_a_full_disk_is_said_and_the_old_front_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(tmp_path)
    directory.write_front({"schema": "kneepoint.front/1", "n": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"cannot write .*front.json: No space left on device"):
            directory.write_front({"schema": "kneepoint.front/1", "n": 2})
    assert directory.read_front()["n"] == 1


def test_reading_what_is_not_there_is_refused(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    with pytest.raises(RunError, match=r"a run directory holds a job.yaml; there is none"):
        directory.read_job()
    with pytest.raises(RunError, match="there is no front in"):
        directory.read_front()
    directory.front_file.write_text("{")
    with pytest.raises(RunError, match="must be JSON"):
        directory.read_front()
    directory.front_file.write_text("{}")
    with pytest.raises(RunError, match="must have schema"):
        directory.read_front()
