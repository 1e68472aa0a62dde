"""Processes of this machine: the same scores as in the search's own, whatever candidates do to them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kneepoint.objectives import Accuracy, Size, View
from kneepoint.objectives.objective import objective
from kneepoint.search.evaluator import Evaluator
from kneepoint.search.job import Job
from kneepoint.search.progress import Status
from kneepoint.search.record import Record
from kneepoint.search.trial_log import TrialLog
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.local import LocalWorkers
from kneepoint.search.workers.settings import Workers
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobError, JobFailed, KneepointError
from tests.search import tiny_problem
from tests.search.workers.explosive import Explosive


def behave(view: View) -> float:
    """By the first layer's bits: 4 dies, 8 hangs, 16 asks for too much memory; others are fine."""
    layers = dict(view.policy.layers)
    bits = next(iter(layers.values())).weight_bits if layers else 0
    if bits == 4:
        os._exit(3)
    if bits == 8:
        time.sleep(600)
    if bits == 16:
        return float(len(bytearray(1 << 40)))
    return 1.0


def evaluator_of(joint: JointSpace, path: Path, *more: Any) -> Evaluator:
    job = tiny_problem.job(joint, objectives=[Accuracy(), Size(), *more])
    return Evaluator(joint, job.scored, path, job.seed, job.threads, job.settings)


@pytest.fixture
def misbehaving(joint: JointSpace, tmp_path: Path) -> Iterator[LocalWorkers]:
    evaluator = evaluator_of(joint, tmp_path, tiny_problem.Fragile(behave))
    workers = LocalWorkers.of(evaluator, Workers(1, silence_seconds=1.5), tmp_path / "logs")
    yield workers
    workers.close()


def measured(workers: LocalWorkers, policy: Policy) -> Outcome:
    workers.submit(Assignment(policy, "ptq"))
    while not (outcomes := workers.wait(5)):
        pass
    return outcomes[0]


def test_a_candidate_that_takes_too_long_is_given_up(joint: JointSpace, tmp_path: Path) -> None:
    evaluator = evaluator_of(joint, tmp_path, tiny_problem.Fragile(behave))
    workers = LocalWorkers.of(evaluator, Workers(1, timeout_seconds=1.5), tmp_path / "logs")
    slow = measured(workers, joint.policy(joint.uniform("teacher", 8, 1.0)))
    workers.close()
    assert slow.record is not None
    assert slow.record.scores is None
    assert slow.record.error == "TimeoutError: not measured after 1.5 s (workers.timeout_seconds), so it was stopped"
    assert 1.5 <= slow.record.seconds < 15


def test_a_bad_candidate_reaches_nobody_else(misbehaving: LocalWorkers, joint: JointSpace) -> None:
    died = measured(misbehaving, joint.policy(joint.uniform("teacher", 4, 1.0)))
    assert died.lost == "its worker process ended: exit code 3"
    hung = measured(misbehaving, joint.policy(joint.uniform("teacher", 8, 1.0)))
    assert hung.record is not None
    assert str(hung.record.error).startswith("TimeoutError: no sign of progress for 1.5 s")
    greedy = measured(misbehaving, joint.policy(joint.uniform("teacher", 16, 1.0)))
    assert greedy.record is not None
    assert str(greedy.record.error).startswith("MemoryError")
    fine = measured(misbehaving, Policy.build())
    assert fine.record is not None
    assert fine.record.scores is not None
    assert [state.state for state in misbehaving.workers()] == ["idle"]


def test_a_worker_that_is_killed_while_it_waits_is_replaced(joint: JointSpace, tmp_path: Path) -> None:
    workers = LocalWorkers.of(evaluator_of(joint, tmp_path), Workers(1), tmp_path / "logs")
    try:
        measured(workers, Policy.build())
        (process,) = workers._processes.values()
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.wait()
        assert workers.wait(0.2) == []
        again = measured(workers, Policy.build())
        assert again.record is not None
    finally:
        workers.close()


def test_a_memory_limit_fails_the_candidate_alone(joint: JointSpace, tmp_path: Path) -> None:
    def greedy(view: View) -> float:
        return float(len(bytearray(6 << 30))) if view.policy.layers else 1.0

    evaluator = evaluator_of(joint, tmp_path, tiny_problem.Fragile(greedy))
    workers = LocalWorkers.of(evaluator, Workers(1, memory_gb=4), tmp_path / "logs")
    try:
        first = measured(workers, joint.policy(joint.uniform("teacher", 8, 1.0)))
        assert first.record is not None
        assert str(first.record.error).startswith("MemoryError")
        second = measured(workers, Policy.build())
        assert second.record is not None
        assert second.record.scores is not None
    finally:
        workers.close()


def test_what_is_wrong_with_the_job_is_the_job_s(joint: JointSpace, tmp_path: Path) -> None:
    def confused(view: View) -> float:
        return "much"  # type: ignore[return-value]  # that is what is wrong

    evaluator = evaluator_of(joint, tmp_path, objective(confused, direction="minimize"))
    workers = LocalWorkers.of(evaluator, Workers(2), tmp_path / "logs")
    try:
        outcome = measured(workers, Policy.build())
        assert isinstance(outcome.error, KneepointError)
    finally:
        workers.close()


def test_a_job_that_cannot_travel_is_refused(joint: JointSpace, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        behaviour = tiny_problem.Fragile(lambda view: float(file.write("")))
        with pytest.raises(JobError, match="must be picklable"):
            LocalWorkers.of(evaluator_of(joint, tmp_path, behaviour), Workers(2))


def test_a_worker_that_cannot_load_the_job_ends_the_search(joint: JointSpace, tmp_path: Path) -> None:
    behaviour = tiny_problem.Fragile(Explosive())
    workers = LocalWorkers.of(evaluator_of(joint, tmp_path, behaviour), Workers(1), tmp_path / "logs")
    try:
        with pytest.raises(JobFailed, match="cannot load the job: OSError: not on this machine"):
            measured(workers, Policy.build())
    finally:
        workers.close()


def by_policy(path: Path) -> dict[str, Record]:
    return {record.id: record for record in TrialLog(path / "trials.jsonl").records}


def job_of_two(joint: JointSpace, **changes: Any) -> Job:
    return tiny_problem.job(joint, workers=2, trials=10, **changes)


def test_two_workers_measure_what_one_does_and_train_each_student_once(joint: JointSpace, tmp_path: Path) -> None:
    tiny_problem.run(job_of_two(joint, sampler="random"), tmp_path / "two")
    tiny_problem.run(tiny_problem.job(joint, trials=10, sampler="random"), tmp_path / "one")
    one, two = by_policy(tmp_path / "one"), by_policy(tmp_path / "two")
    shared = one.keys() & two.keys()
    assert len(shared) >= 15  # the sampler depends on nothing but its seed
    assert {name: one[name].values for name in shared} == {name: two[name].values for name in shared}
    assert {name: one[name].weights for name in shared} == {name: two[name].weights for name in shared}
    assert len({record.worker for record in two.values()}) == 3  # the teacher is measured by the search itself
    events = [json.loads(line) for line in (tmp_path / "two" / "events.jsonl").read_text().splitlines()]
    begun = Counter(event["trial"] for event in events if event["event"] == "trial started")
    assert set(begun.values()) == {1}
    assert begun.keys() == two.keys() - {Policy.build().id + "-ptq"}


class _Interrupter:
    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, status: Status) -> None:
        if status.stage == "searching":
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt


def test_an_interrupted_run_of_two_goes_on(joint: JointSpace, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny_problem.run(job_of_two(joint), tmp_path, _Interrupter(4))
    before = TrialLog(tmp_path / "trials.jsonl").records
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["ended"] == "interrupted"
    tiny_problem.run(job_of_two(joint), tmp_path)
    after = TrialLog(tmp_path / "trials.jsonl").records
    assert after[: len(before)] == before
    proposed = [record for record in after if record.parameters is not None and record.fidelity == "ptq"]
    assert len(proposed) == 10
    uniform = {joint.policy(joint.uniform(student, bits, 1.0)).id for bits in (8, 4) for student in joint.members}
    assert uniform <= {record.policy.id for record in proposed}  # anchors that were under way were not forgotten
    assert json.loads((tmp_path / "status.json").read_text())["ended"] == "done"
