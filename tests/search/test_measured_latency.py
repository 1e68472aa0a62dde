"""A search that measures latencies on this machine, and goes on later."""

from __future__ import annotations

from pathlib import Path

import pytest

from kneepoint.deployment import machine
from kneepoint.objectives import Accuracy, MeasuredLatency
from kneepoint.search.job import Job
from kneepoint.search.run_directory import RunDirectory
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import RunError
from tests.search import tiny_problem

NAME = "measured_latency_ms@this-machine"


def test_a_search_by_measured_latency_is_resumed_without_measuring_again(
    joint: JointSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_problem.space(joint.task, students=None)

    def wanted(trials: int) -> Job:
        return tiny_problem.job(plain, objectives=[Accuracy(), MeasuredLatency(seconds=0.05)], trials=trials)

    first = tiny_problem.run(wanted(1), tmp_path / "run")
    records = RunDirectory(tmp_path / "run").log().records
    assert all(record.error is None and record.values[NAME] > 0 for record in records)
    again = tiny_problem.run(wanted(2), tmp_path / "run")
    later = RunDirectory(tmp_path / "run").log().records
    assert later[: len(records)] == records
    assert {axis.name for axis in again.front.axes} == {"accuracy", NAME}
    assert first.front.pick("fastest").values[NAME] > 0
    monkeypatch.setattr(machine, "machine_name", lambda: "another processor")
    with pytest.raises(RunError, match="holds the run of another job \\(conditions differs\\)"):
        tiny_problem.run(wanted(2), tmp_path / "run")
