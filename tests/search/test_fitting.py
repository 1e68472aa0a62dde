"""Devices with little memory: what fits none of them is not measured, what fits one may be on its front."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kneepoint.hardware_models import Device, load_device
from kneepoint.hardware_models.device import Memory
from kneepoint.objectives import Accuracy, Latency, Size
from kneepoint.search.driver import Result
from kneepoint.search.front_file import read_front
from kneepoint.search.refusals import require_success
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobError
from tests.search import tiny_problem

PI = load_device("raspberry-pi-4b")


def device(flash_mb: float, limit_mb: float = 1.0, name: str = "mcu") -> Device:
    return PI.model_copy(update={"name": name, "memory": Memory(limit_mb=limit_mb, flash_mb=flash_mb)})


@pytest.fixture(scope="module")
def tight(joint: JointSpace, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A search for a microcontroller that the teacher does not fit."""
    job = tiny_problem.job(joint, objectives=[Accuracy(), Latency(device(0.0012)), Size()], trials=16)
    assert job.constraint_names == ["0: fits a device of the job"]
    return tiny_problem.run(job, tmp_path_factory.mktemp("runs") / "tight")


def test_what_does_not_fit_is_neither_measured_nor_on_the_front(tight: Result) -> None:
    assert len(tight.front)
    assert all(one.values["size_mb"] <= 0.0012 for one in tight.front)
    lines = [json.loads(line) for line in (tight.directory / "trials.jsonl").read_text().splitlines()]
    searched = [line for line in lines if line["baseline"] is None]
    assert len([line for line in searched if line["fidelity"] == "ptq"]) == 16  # the budget is one of measurements
    assert not any("misfits" in line for line in searched)
    teacher = next(line for line in lines if line["baseline"] == "teacher fp32")
    assert teacher["misfits"]["mcu"] > 0


def test_baselines_that_do_not_fit_are_marked(tight: Result) -> None:
    (teacher,) = tight.baselines["teacher fp32"]
    assert (teacher.feasible, sorted(teacher.misfits)) == (False, ["mcu"])
    assert len(read_front(RunDirectory(tight.directory).read_front())) == len(tight.front)


def test_a_device_with_room_sets_no_constraint(joint: JointSpace) -> None:
    job = tiny_problem.job(joint, objectives=[Accuracy(), Latency(device(5.0))])
    assert (job.tight_devices, job.constraint_names) == ([], [])


def test_a_space_without_anything_that_fits_is_refused_at_once(joint: JointSpace, tmp_path: Path) -> None:
    job = tiny_problem.job(joint, objectives=[Accuracy(), Latency(device(1e-6)), Latency(PI)])
    with pytest.raises(
        JobError, match=r"nothing in the space fits mcu: of the smallest network constants take 0\.0\d+ MB"
    ):
        tiny_problem.run(job, tmp_path / "run")
    assert len((tmp_path / "run" / "trials.jsonl").read_text().splitlines()) == 1  # the teacher alone


@pytest.fixture(scope="module")
def two(joint: JointSpace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """The trials of a job with a microcontroller and a board."""
    job = tiny_problem.job(joint, objectives=[Accuracy(), Latency(device(0.0012)), Latency(PI), Size()])
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "two")
    directory.open_for(job)
    trials = Trials(job, directory)
    yield trials
    trials.close()
    directory.unlock()


def test_a_candidate_too_large_for_one_device_may_be_on_the_front_of_another(two: Trials, joint: JointSpace) -> None:
    large, small = (
        two.candidate(two.measure(policy, "ptq"))
        for policy in (joint.policy(joint.uniform(keep=1.0)), joint.policy(joint.uniform(keep=0.5)))
    )
    assert (sorted(large.misfits), large.feasible, sorted(small.misfits)) == (["mcu"], True, [])
    front = two.front([large, small])
    assert [one.id for one in front] == [small.id]
    assert front.everyone == [small, *front.elsewhere]
    assert [one.id for one in front.elsewhere] in ([], [large.id])  # as accurate as it turns out to be
    assert large.id not in [one.id for one in front.for_device("mcu")]
    assert not two.cannot_fit(large.policy)  # it fits the board


def test_scores_count_for_nothing_where_a_candidate_does_not_fit(two: Trials) -> None:
    record = two.measure(Policy.build(), "ptq")
    counted = two.counted(record.scores or {}, record.misfits)
    scales = {axis.name: axis.scale for axis in two.axes}
    assert scales["latency_ms@mcu"](counted["latency_ms@mcu"].value) == pytest.approx(1.0)
    assert counted["latency_ms@raspberry-pi-4b"] == (record.scores or {})["latency_ms@raspberry-pi-4b"]
    assert two.violations(record) == [0.0]  # it fits the board


def test_a_search_that_measured_nothing_says_why(two: Trials) -> None:
    with pytest.raises(JobError, match="no setting that was proposed fits mcu or raspberry-pi-4b"):
        require_success([], two)
