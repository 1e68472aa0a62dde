"""Kernels of measured policies are kept for every known runtime, at little cost, and nothing depends on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kneepoint.hardware_models.devices import list_devices, load_device, user_folder
from kneepoint.hardware_models.workload_file import canonical
from kneepoint.search.progress import Progress, Status
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.stored_workloads import StoredWorkloads, WorkloadKeeper, known_runtimes
from kneepoint.spaces.joint_space import JointSpace
from tests.search import tiny_problem


class Clock:
    """Moves on when it is told to, and a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> RunDirectory:
    """A finished run without its kernels."""
    path = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(path / "workloads")
    return RunDirectory(path)


def kept(directory: RunDirectory) -> int:
    return len(StoredWorkloads(directory).file(("activation",)))


def test_every_known_device_has_its_runtime() -> None:
    found = known_runtimes()
    devices = [load_device(name) for name in list_devices()]
    assert found.keys() == {canonical(device.fusion) for device in devices}


def test_a_broken_file_of_the_user_is_passed_over() -> None:
    path = user_folder() / "broken.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("name: broken\n")
    try:
        assert known_runtimes()
    finally:
        path.unlink()


def test_a_finished_run_has_the_kernels_of_all_it_measured(finished: Path) -> None:
    directory = RunDirectory(finished)
    measured = {record.policy.id for record in directory.log().records if record.scores is not None}
    for rules in known_runtimes():
        file = StoredWorkloads(directory).file(rules)
        assert file.damaged is None
        assert all(key in file for key in measured)


def test_a_search_gives_them_a_small_share_of_its_time(joint: JointSpace, copied: RunDirectory) -> None:
    clock, records = Clock(), copied.log().records
    keeper = WorkloadKeeper(tiny_problem.job(joint), copied, clock)
    asked: list[int] = []

    def listed() -> list[Record]:
        asked.append(1)
        return records

    keeper.work(listed)
    assert (kept(copied), asked) == (0, [1])  # a fiftieth of a second is not enough for one, and is spent by looking
    keeper.work(listed)
    assert asked == [1]
    clock.now += 250
    keeper.work(listed)
    some = kept(copied)
    assert 0 < some < 8  # five seconds, as this clock has it
    keeper.work(listed)
    assert kept(copied) == some


def test_the_highest_fidelities_come_first_and_the_rest_is_left(joint: JointSpace, copied: RunDirectory) -> None:
    records = copied.log().records
    clock = Clock()
    keeper = WorkloadKeeper(tiny_problem.job(joint), copied, clock)
    stages: list[str] = []

    def told(status: Status) -> None:
        stages.append(status.stage)
        clock.now += 200 if len(stages) == 1 else 0

    keeper.finish(records, Progress(told))
    file = StoredWorkloads(copied).file(("activation",))
    assert set(stages) == {"keeping kernels for other devices"}
    dear = {record.policy.id for record in records if record.fidelity == "recovered"}
    assert 0 < len(file) < len({record.policy.id for record in records})
    assert all(key in file for key in sorted(dear)) or len(dear) > len(file)


def test_a_search_goes_on_where_they_cannot_be_written(joint: JointSpace, copied: RunDirectory) -> None:
    (copied.path / "workloads").write_text("a file where a folder should be")
    keeper = WorkloadKeeper(tiny_problem.job(joint), copied)
    keeper.finish(copied.log().records, Progress())
    assert (copied.path / "workloads").is_file()
