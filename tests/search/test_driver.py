"""A whole search: its files, and what happens when it is interrupted, fails or runs out."""

from __future__ import annotations

import errno
import json
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from kneepoint.objectives import Accuracy, Latency, Size, View
from kneepoint.reports import RunView, summary_lines
from kneepoint.search.driver import Driver, Status
from kneepoint.search.evaluator import Evaluator
from kneepoint.search.front import Candidate
from kneepoint.search.front_file import read_front
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trial_log import TrialLog
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import JobError, JobFailed, ObjectiveError, RunError
from tests.search import tiny_problem
from tests.search.tiny_problem import Fragile


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each (policy, fidelity) was really measured."""
    counts: Counter[str] = Counter()
    real = Evaluator.evaluate

    def counted(self: Evaluator, policy: Any, fidelity: Any = "ptq", *rest: Any) -> Any:
        record = real(self, policy, fidelity, *rest)
        counts[f"{policy.id}-{fidelity}"] += 1  # only where it ended
        return record

    monkeypatch.setattr(Evaluator, "evaluate", counted)
    return counts


class Interrupter:
    """Presses Ctrl-C at the n-th report of a stage."""

    def __init__(self, stage: str, at: int) -> None:
        self.stage, self.left = stage, at

    def __call__(self, status: Status) -> None:
        if status.stage.startswith(self.stage):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt


def front_bytes(path: Path) -> bytes:
    return (path / "front.json").read_bytes()


def test_the_files_of_a_finished_run_agree(finished: Path) -> None:
    view = RunView.read(finished)
    content = json.loads(front_bytes(finished))
    assert view.knee is not None
    assert view.trials[0].baseline == "teacher fp32"
    assert len([trial for trial in view.searched if trial.fidelity == "ptq"]) == 8
    first_baseline = next(i for i, trial in enumerate(view.trials) if i and trial.baseline)
    assert all(trial.baseline for trial in view.trials[first_baseline:])  # after the search
    for name in content["fronts"]["all"]:
        entry = view.candidates[name]
        assert entry.fidelity == "recovered"
        assert entry.artifact is not None
        assert (finished / entry.artifact).is_file()
    assert len(read_front(content)) == len(content["fronts"]["all"])
    assert {"uniform 8-bit", "uniform 4-bit", "random policies", "all baselines"} <= content["baselines"].keys()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{finished / 'study.db'}")
    assert len(study.trials) == 8


def test_the_same_seed_gives_the_same_front_to_the_byte(finished: Path, joint: JointSpace, tmp_path: Path) -> None:
    result = tiny_problem.run(tiny_problem.job(joint), tmp_path)
    assert front_bytes(tmp_path) == front_bytes(finished)
    assert [one.id for one in result.front] == json.loads(front_bytes(finished))["fronts"]["all"]
    assert result.fronts["raspberry-pi-4b"].hypervolume > 0
    assert result.front[0].build is not None
    assert result.front[0].build().policy == result.front[0].policy


@pytest.mark.parametrize(
    ("stage", "at"),
    [
        ("measuring the teacher", 0),
        ("training student", 2),
        ("searching", 0),
        ("searching", 3),
        ("searching", 7),
        ("searching", 9),  # while candidates climb
        ("recovering", 0),
        ("exporting", 0),
        ("measuring baselines", 4),
        ("done", 0),
    ],
)
def test_an_interrupted_run_goes_on_and_measures_nothing_twice(
    finished: Path, joint: JointSpace, tmp_path: Path, measured: Counter[str], stage: str, at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny_problem.run(tiny_problem.job(joint), tmp_path, Interrupter(stage, at))
    if (tmp_path / "front.json").exists():
        RunView.read(tmp_path)
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
        own = [record for record in TrialLog(tmp_path / "trials.jsonl").records if record.parameters is not None]
        assert [trial.user_attrs["policy_id"] for trial in study.trials] == [record.policy.id for record in own]
    tiny_problem.run(tiny_problem.job(joint), tmp_path)
    assert set(measured.values()) == {1}
    assert front_bytes(tmp_path) == front_bytes(finished)


def test_candidates_climb_in_the_second_half_of_the_search(finished: Path) -> None:
    searched = [trial for trial in RunView.read(finished).trials if not trial.baseline]
    first = next(place for place, trial in enumerate(searched) if trial.fidelity == "recovered")
    assert 4 < first < max(place for place, trial in enumerate(searched) if trial.fidelity == "ptq")


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_other_samplers_resume_to_the_same_front(
    joint: JointSpace, tmp_path: Path, measured: Counter[str], sampler: str
) -> None:
    wanted = tiny_problem.job(joint, sampler=sampler, trials=12)
    tiny_problem.run(wanted, tmp_path / "whole")
    measured.clear()
    with pytest.raises(KeyboardInterrupt):
        tiny_problem.run(wanted, tmp_path / "parts", Interrupter("searching", 7))
    tiny_problem.run(wanted, tmp_path / "parts")
    assert set(measured.values()) == {1}
    assert front_bytes(tmp_path / "parts") == front_bytes(tmp_path / "whole")


def test_a_sampler_without_a_seed_goes_on_with_all_that_was_measured(
    joint: JointSpace, tmp_path: Path, measured: Counter[str]
) -> None:
    wanted = tiny_problem.job(joint, sampler=optuna.samplers.RandomSampler(), trials=10)
    with pytest.raises(KeyboardInterrupt):
        tiny_problem.run(wanted, tmp_path, Interrupter("searching", 6))
    tiny_problem.run(tiny_problem.job(joint, sampler=optuna.samplers.RandomSampler(), trials=10), tmp_path)
    log = TrialLog(tmp_path / "trials.jsonl")
    assert len([one for one in log.records if one.parameters is not None]) == 10
    assert set(measured.values()) == {1}


def test_more_trials_continue_a_finished_run(joint: JointSpace, tmp_path: Path, measured: Counter[str]) -> None:
    tiny_problem.run(tiny_problem.job(joint, trials=12), tmp_path / "whole")
    measured.clear()
    tiny_problem.run(tiny_problem.job(joint, trials=8), tmp_path / "parts")
    tiny_problem.run(tiny_problem.job(joint, trials=12), tmp_path / "parts")
    assert set(measured.values()) == {1}
    assert front_bytes(tmp_path / "parts") == front_bytes(tmp_path / "whole")


def test_a_finished_run_is_only_read_again(joint: JointSpace, tmp_path: Path, measured: Counter[str]) -> None:
    tiny_problem.run(tiny_problem.job(joint), tmp_path)
    before = front_bytes(tmp_path)
    measured.clear()
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "artifacts").iterdir()}
    tiny_problem.run(tiny_problem.job(joint), tmp_path)
    assert not measured
    assert front_bytes(tmp_path) == before
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "artifacts").iterdir()} == stamps


def fails_for_students(view: View) -> float:
    if view.policy.student:
        raise RuntimeError("no such kernel\nand a long trace")
    return float(view.table.parameters)


def is_nan_for_students(view: View) -> float:
    return math.nan if view.policy.student else float(view.table.parameters)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [(fails_for_students, "RuntimeError: no such kernel"), (is_nan_for_students, "scores are finite numbers; got")],
)
def test_a_candidate_that_fails_is_recorded_and_the_search_goes_on(
    joint: JointSpace, tmp_path: Path, behaviour: Any, reason: str
) -> None:
    result = tiny_problem.run(tiny_problem.job(joint, objectives=[Accuracy(), Fragile(behaviour)]), tmp_path)
    records = TrialLog(tmp_path / "trials.jsonl").records
    failed = [one for one in records if one.scores is None]
    assert result.failed == len(failed) > 0
    assert all(one.policy.student and (one.error or "").startswith(reason) for one in failed)
    assert all(not one.policy.student for one in result.front)
    RunView.read(tmp_path)


def fails_but_for_the_teacher(view: View) -> float:
    if view.policy.layers or view.policy.student:
        raise RuntimeError("no candidate works")
    return 1.0


def test_a_search_in_which_everything_fails_stops_early_with_the_reason(joint: JointSpace, tmp_path: Path) -> None:
    wanted = tiny_problem.job(joint, objectives=[Accuracy(), Fragile(fails_but_for_the_teacher)], trials=50)
    with pytest.raises(JobFailed, match=r"the first 5 candidates all failed .*RuntimeError: no candidate works"):
        tiny_problem.run(wanted, tmp_path)
    assert len(TrialLog(tmp_path / "trials.jsonl")) == 6
    assert RunView.read(tmp_path).knee is None
    assert (tmp_path / "study.db").exists()


def test_a_teacher_that_fails_ends_the_job(joint: JointSpace, tmp_path: Path) -> None:
    def broken(view: View) -> float:
        raise RuntimeError("nothing works")

    with pytest.raises(JobFailed, match="the teacher itself cannot be measured: RuntimeError: nothing works"):
        tiny_problem.run(tiny_problem.job(joint, objectives=[Accuracy(), Fragile(broken)]), tmp_path)


def test_an_objective_that_returns_no_number_ends_the_job(joint: JointSpace, tmp_path: Path) -> None:
    def words(view: View) -> Any:
        return "many"

    words.direction = "minimize"  # type: ignore[attr-defined]  # how a function says its direction
    with pytest.raises(ObjectiveError, match="must return a float"):
        tiny_problem.run(tiny_problem.job(joint, objectives=[Accuracy(), words]), tmp_path)


def test_constraints_nobody_meets_name_the_nearest_and_leave_a_readable_run(joint: JointSpace, tmp_path: Path) -> None:
    wanted = tiny_problem.job(joint, constraints=["size_mb <= 0.00001", "accuracy >= 0.2"])
    with pytest.raises(
        JobError, match=r"no candidate of 8 meets size_mb <= 0.00001 and accuracy >= 0.2; nearest: "
    ) as caught:
        tiny_problem.run(wanted, tmp_path)
    smallest = min(
        (r for r in TrialLog(tmp_path / "trials.jsonl").records if r.parameters), key=lambda r: r.values["size_mb"]
    )
    assert f"nearest: {smallest.policy.id} (size_mb = " in str(caught.value)
    view = RunView.read(tmp_path)
    assert view.members() == []
    assert len(read_front(json.loads(front_bytes(tmp_path)))) == 0
    assert (tmp_path / "study.db").exists()


def test_constraints_hold_for_the_whole_front(joint: JointSpace, tmp_path: Path) -> None:
    result = tiny_problem.run(tiny_problem.job(joint, constraints=["macs <= 0.9 * teacher"]), tmp_path)
    assert all(one.values["macs"] <= 0.9 * result.teacher["macs"].value for one in result.front)


def test_a_small_space_ends(tmp_path: Path, joint: JointSpace) -> None:
    small = tiny_problem.space(joint.task, weight_bits=(4, 8), keep=(1.0,), students=None)
    tiny_problem.run(tiny_problem.job(small, trials=500, sampler="random"), tmp_path / "random")
    tiny_problem.run(tiny_problem.job(small, trials=500), tmp_path / "ours")
    for name in ("random", "ours"):
        log = TrialLog(tmp_path / name / "trials.jsonl")
        assert len([one for one in log.records if one.fidelity == "ptq" and not one.baseline]) == 2**3


def test_minutes_are_kept(joint: JointSpace, tmp_path: Path) -> None:
    tiny_problem.run(tiny_problem.job(joint, trials=30, minutes=1e-6), tmp_path)
    assert len([one for one in TrialLog(tmp_path / "trials.jsonl").records if one.parameters]) == 1


def test_one_objective_and_mixed_directions(joint: JointSpace, tmp_path: Path) -> None:
    result = tiny_problem.run(tiny_problem.job(joint, objectives=[Accuracy()], trials=4), tmp_path / "one")
    best = result.front[0]
    assert result.front.alike().get(best.id, []) == [one.id for one in result.front[1:]]
    mixed = ["loss", "accuracy", Size(), "parameters"]
    result = tiny_problem.run(tiny_problem.job(joint, objectives=mixed, trials=6), tmp_path / "mixed")
    assert [axis.direction for axis in result.front.axes] == ["minimize", "maximize", "minimize", "minimize"]
    assert result.front.pick("most-accurate").values["loss"] == min(one.values["loss"] for one in result.front)


def test_the_teacher_itself_may_be_on_the_front(joint: JointSpace, tmp_path: Path) -> None:
    space = tiny_problem.space(joint.task, weight_bits=(8, 32), keep=(1.0,), students=None)
    wanted = tiny_problem.job(space, objectives=[Latency("raspberry-pi-4b"), Size()], trials=8)
    tiny_problem.run(wanted, tmp_path)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert len({trial.user_attrs["policy_id"] for trial in study.trials}) == 8


def test_a_full_disk_ends_the_run_and_it_can_be_resumed(
    finished: Path, joint: JointSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.fsync, 20

    def full(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left on device; make room and resume"):
            tiny_problem.run(tiny_problem.job(joint), tmp_path)
    assert TrialLog(tmp_path / "trials.jsonl").failed == 0
    tiny_problem.run(tiny_problem.job(joint), tmp_path)
    assert front_bytes(tmp_path) == front_bytes(finished)


def test_the_observer_sees_every_stage(joint: JointSpace, tmp_path: Path) -> None:
    seen: list[Status] = []
    tiny_problem.run(tiny_problem.job(joint), tmp_path, seen.append)
    stages = list(dict.fromkeys(status.stage.split(":")[0] for status in seen))
    for stage in ("measuring the teacher", "searching", "recovering finalists", "exporting and checking", "done"):
        assert stage in stages
    assert all(0 <= status.done <= status.total for status in seen)
    last = [status for status in seen if status.stage == "searching"][-1]
    assert last.done == last.total == 8
    assert last.hypervolume > 0
    assert set(last.best) == {"accuracy", "latency_ms@raspberry-pi-4b", "size_mb"}


def test_candidates_of_a_result_know_their_task(joint: JointSpace, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    wanted = tiny_problem.job(joint, trials=2)
    directory.open_for(wanted)
    result = Driver(wanted, directory).run()
    directory.unlock()
    candidate: Candidate = result.front.knee()
    assert candidate.build is not None
    assert candidate.build.task is joint.task
    assert candidate.executed is not None
    assert candidate.test is not None
    assert result.baselines["teacher fp32"][0].values == {name: score.value for name, score in result.teacher.items()}


def test_the_best_of_the_recovered_are_trained_to_their_end_where_the_job_asks(
    joint: JointSpace, tmp_path: Path
) -> None:
    longer = replace(tiny_problem.FAST, full=replace(tiny_problem.FAST.recovery, steps=4))
    result = tiny_problem.run(tiny_problem.job(joint, settings=longer), tmp_path)
    assert {one.fidelity for one in result.front} == {"full"}
    counts = Counter(record.fidelity for record in TrialLog(tmp_path / "trials.jsonl").records if not record.baseline)
    assert counts["ptq"] == 8
    assert counts["recovered"] >= counts["full"] >= 1
    assert [one.fidelity for one in read_front(json.loads(front_bytes(tmp_path)))] == ["full"] * len(result.front)


def test_hopeless_candidates_are_stopped_and_never_climb(joint: JointSpace, tmp_path: Path) -> None:
    space = tiny_problem.space(joint.task, weight_bits=(2, 8), keep=(1.0, 0.5, 0.25))
    tiny_problem.run(tiny_problem.job(space, sampler="random", trials=40), tmp_path)
    records = TrialLog(tmp_path / "trials.jsonl").records
    stopped = {record.policy.id for record in records if record.samples is not None}
    assert stopped
    assert all(record.samples == 64 for record in records if record.policy.id in stopped)
    assert not stopped & {record.policy.id for record in records if record.fidelity == "recovered"}
    assert not stopped & {record.policy.id for record in records if record.baseline}
    assert "were stopped as soon as the front" in "".join(summary_lines(RunView.read(tmp_path)))
