"""A finished run on a device that it did not know: its prices, its front, and where its kernels come from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kneepoint.hardware_models import CostModel, Device, Workload, load_device
from kneepoint.hardware_models.device import Memory
from kneepoint.objectives import Accuracy, Energy, Latency, PeakMemory, Size
from kneepoint.reports import RunView, front_table
from kneepoint.search.driver import Result
from kneepoint.search.job import Job
from kneepoint.search.repricing import Repricing, fidelity_named
from kneepoint.search.run_directory import RunDirectory
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.lowering import lower
from kneepoint.tasks.errors import InputError, JobError, RunError
from tests.search import tiny_problem

PI, SERVER = load_device("raspberry-pi-4b"), load_device("x86-server")
Change = Callable[[Path], None]


def no_job() -> Job:
    raise JobError("the file with the task is gone")


def priced(path: Path, device: Device = SERVER, job: Callable[[], Job] = no_job) -> Repricing:
    return Repricing(RunDirectory(path), device, job)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def constrained(joint: JointSpace, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run of three costs on one device, with constraints on both kinds of objective."""
    job = tiny_problem.job(
        joint,
        objectives=[Latency(PI), Accuracy(), Energy(PI), PeakMemory(PI), Size()],
        constraints=["accuracy_drop <= 0.6 and latency_ms@raspberry-pi-4b <= teacher", "size_mb <= teacher"],
    )
    return tiny_problem.run(job, tmp_path_factory.mktemp("runs") / "constrained")


def test_every_candidate_has_the_price_of_its_own_network(finished: Path, joint: JointSpace) -> None:
    found = priced(finished).front("ptq")
    records = [one for one in RunDirectory(finished).log().records if one.fidelity == "ptq" and one.baseline is None]
    assert found.content["repriced"]["candidates"] == len(records)
    for one in found.front:
        table = lower(joint.network_of(one.policy), one.policy)
        cost = CostModel(SERVER).cost(Workload.of(table, SERVER.fusion))
        score = one.scores["latency_ms@x86-server"]
        assert (score.value, score.error) == pytest.approx((cost.latency_ms, cost.latency_ms_error))


def test_the_front_is_of_the_fidelity_of_the_runs_own_and_keeps_artifacts(finished: Path) -> None:
    content = json.loads((finished / "front.json").read_text())
    own = {entry["id"]: entry for entry in content["candidates"]}
    found = priced(finished).front()
    assert {one.fidelity for one in found.front} == {"recovered"}
    assert [axis.name for axis in found.front.axes] == ["accuracy", "latency_ms@x86-server", "size_mb"]
    shared = [one for one in found.front if one.id in own]
    assert shared
    assert [one.artifact for one in shared] == [own[one.id]["artifact"] for one in shared]
    assert found.content["fronts"]["all"] == found.content["fronts"]["x86-server"] == [one.id for one in found.front]
    assert found.content["knee"] == found.front.knee().id
    assert found.content["hypervolume"] == pytest.approx(found.front.hypervolume)


def test_the_same_device_has_the_same_front(finished: Path) -> None:
    """Prices of the run's own device come out as they were measured, and so does the front."""
    content = json.loads((finished / "front.json").read_text())
    found = priced(finished, PI).front()
    assert found.content["reference"] == content["reference"]
    assert found.content["fronts"] == content["fronts"]
    assert found.content["hypervolume"] == pytest.approx(content["hypervolume"])
    assert found.content["baselines"] == content["baselines"]
    assert found.content["teacher"] == content["teacher"]


def test_the_worst_is_a_little_more_than_the_teachers_cost(finished: Path) -> None:
    content = priced(finished).front().content
    teacher = content["teacher"]["latency_ms@x86-server"]["value"]
    assert content["reference"]["latency_ms@x86-server"] == {"worst": pytest.approx(1.1 * teacher), "ideal": 0.0}


def test_views_are_drawn_from_it(finished: Path) -> None:
    view = RunView.read(finished).with_front(priced(finished).front().content)
    assert front_table(view, "x86-server").row_count == len(view.members("x86-server")) + len(view.baselines)


def test_other_costs_follow_the_runs_own_and_foreign_constraints_do_not(constrained: Result) -> None:
    named = SERVER.model_copy(update={"name": "other", "power": PI.power})
    found = priced(constrained.directory, named).front()
    names = [axis.name for axis in found.front.axes]
    assert names == ["latency_ms@other", "energy_mj@other", "peak_memory_mb@other", "accuracy", "size_mb"]
    facts = found.content["repriced"]
    assert facts["constraints_left_out"] == ["latency_ms@raspberry-pi-4b <= teacher"]
    assert found.content["constraints"] == ["accuracy_drop <= 0.6", "size_mb <= teacher"]
    assert facts["objectives_left_out"] == [
        f"{kind}@raspberry-pi-4b" for kind in ("latency_ms", "energy_mj", "peak_memory_mb")
    ]
    assert any("do not apply: latency_ms@raspberry-pi-4b <= teacher" in note for note in found.notes)
    one = found.front[0]
    energy, latency = one.scores["energy_mj@other"], one.scores["latency_ms@other"]
    assert PI.power is not None
    assert energy.value == pytest.approx(latency.value * PI.power.active_w)
    assert energy.error == pytest.approx((latency.error or 0) * PI.power.active_w)


def test_a_device_without_power_has_no_energy(constrained: Result) -> None:
    found = priced(constrained.directory, PI.model_copy(update={"name": "other", "power": None})).front()
    assert "energy_mj@other" not in [axis.name for axis in found.front.axes]


def test_what_does_not_fit_is_not_on_the_front(constrained: Result) -> None:
    sizes = sorted(one.values["size_mb"] for one in priced(constrained.directory, PI).front("ptq").front)
    memory = Memory(limit_mb=1, flash_mb=sizes[0] * 1.01)
    mcu = PI.model_copy(update={"name": "mcu", "memory": memory})
    found = priced(constrained.directory, mcu).front("ptq")
    assert {one.values["size_mb"] <= sizes[0] * 1.01 for one in found.front} == {True}
    assert found.content["repriced"]["does_not_fit"]
    assert any("do not fit mcu" in note and "of flash of mcu" in note for note in found.notes)
    nothing = priced(
        constrained.directory, mcu.model_copy(update={"memory": Memory(limit_mb=1, flash_mb=1e-6)})
    ).front()
    assert (len(nothing.front), nothing.content["knee"], nothing.content["hypervolume"]) == (0, None, 0.0)
    assert "the front is empty: no candidate fits and meets the constraints" in nothing.notes


def test_a_run_in_memory_can_export_what_it_prices(constrained: Result) -> None:
    found = constrained.front_for("x86-server")
    assert [one.build is not None for one in found] == [True] * len(found)
    assert constrained.front_for("raspberry-pi-4b") is not None
    assert [one.id for one in constrained.front_for(PI)] == [one.id for one in constrained.fronts["raspberry-pi-4b"]]


def drop(path: Path) -> None:
    shutil.rmtree(path / "workloads")


def damage(path: Path) -> None:
    for file in (path / "workloads").iterdir():
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :])


@pytest.mark.parametrize("change", [drop, damage])
def test_an_old_or_damaged_run_is_traced_again_once(
    finished: Path, copied: Path, joint: JointSpace, change: Change
) -> None:
    change(copied)
    said: list[str] = []
    job = tiny_problem.job(joint)
    found = Repricing(RunDirectory(copied), SERVER, lambda: job, said.append).front()
    assert found.content == priced(finished).front().content
    assert len(said) == 1
    assert "loading the task to trace it" in said[0]
    assert ("is damaged: line" in said[0]) == (change is damage)
    assert priced(copied).front().content == found.content  # without the task


def test_a_task_that_is_gone_is_one_clear_line(copied: Path) -> None:
    drop(copied)
    with pytest.raises(
        RunError, match=r"kernels of \d+ policies that .*workloads does not hold.*cannot be loaded: the file"
    ):
        priced(copied).front()


def test_a_task_that_changed_is_refused(copied: Path, joint: JointSpace) -> None:
    drop(copied)
    job = tiny_problem.job(tiny_problem.space(replace(joint.task, validation=tiny_problem.batches(64, 9))))
    with pytest.raises(RunError, match="is another now"):
        priced(copied, SERVER, lambda: job).front()


def test_kernels_of_another_run_are_not_believed(finished: Path, copied: Path) -> None:
    job = copied / "job.yaml"
    job.write_text(job.read_text().replace("fingerprint: ", "fingerprint: '0' #"))
    with pytest.raises(RunError, match="cannot be loaded"):
        priced(copied).front()


def test_a_fidelity_that_nobody_measured_is_refused(finished: Path) -> None:
    with pytest.raises(InputError, match=r"nothing was measured as 'full'; the run has ptq, recovered"):
        priced(finished).front("full")
    with pytest.raises(InputError, match="fidelity is one of"):
        fidelity_named("best")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda front: front.pop("baselines"),
        lambda front: front.update(teacher=3),
        lambda front: front.update(constraints=None),
        lambda front: front.update(baselines={"x": {"ids": 4}}),
    ],
)
def test_a_malformed_front_is_one_clear_line(copied: Path, spoil: Callable[[Any], None]) -> None:
    content = json.loads((copied / "front.json").read_text())
    spoil(content)
    (copied / "front.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"front\.json is malformed"):
        priced(copied).front()
