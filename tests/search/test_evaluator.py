"""The same scores in any process and any order."""

from __future__ import annotations

import errno
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.objectives import Accuracy, Latency, Size
from kneepoint.objectives.objective import Direction
from kneepoint.search.evaluator import Evaluator, NetworkBuilder
from kneepoint.search.racing import Race
from kneepoint.search.record import FIDELITIES, Record
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobError, RunError
from kneepoint.tasks.residual_network import ResidualNet
from kneepoint.tasks.task import Task
from tests.search import tiny_problem

ELSEWHERE = """
import json, pickle, sys
evaluator, policies = pickle.load(open(sys.argv[1], "rb"))
records = [evaluator.evaluate(policy, "recovered") for policy in reversed(policies)]
print(json.dumps([[record.values, record.error, record.weights] for record in reversed(records)]))
"""


def policies(joint: JointSpace) -> list[Policy]:
    settings = [joint.uniform("teacher", 8, 0.5), joint.uniform("width=4", 4, 1.0), joint.uniform("width=6", 16, 0.5)]
    return [joint.policy(setting) for setting in settings]


def evaluator(joint: JointSpace, directory: Path) -> Evaluator:
    objectives = [Accuracy().bind(joint.task), Latency("raspberry-pi-4b"), Size()]
    return Evaluator(joint, objectives, directory, seed=3, settings=tiny_problem.FAST)


def test_another_process_and_another_order_give_the_same(joint: JointSpace, tmp_path: Path) -> None:
    here = [evaluator(joint, tmp_path / "here").evaluate(policy, "recovered") for policy in policies(joint)]
    sent = tmp_path / "evaluator.pickle"
    used = evaluator(joint, tmp_path / "there")
    used.evaluate(Policy.build())
    sent.write_bytes(pickle.dumps((used, policies(joint))))
    command = [sys.executable, "-c", ELSEWHERE, str(sent)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    there = json.loads(done.stdout)
    assert there == [[record.values, record.error, record.weights] for record in here]
    assert all(record.error is None and record.weights for record in here)


def test_a_stored_network_is_read_back_and_another_made_again(joint: JointSpace, tmp_path: Path) -> None:
    first = evaluator(joint, tmp_path)
    policy = policies(joint)[1]
    for record in (first.evaluate(policy, "recovered"), first.evaluate(policy)):
        again = evaluator(joint, tmp_path)
        network = NetworkBuilder(again, Record.from_line(record.to_line()))()
        assert {name: score.value for name, score in again.score(network).items()} == record.values


def test_a_network_without_a_block_is_cheaper_and_read_back_as_it_was(tmp_path: Path) -> None:
    tiny = tiny_problem.task()
    model = ResidualNet(8, 2, classes=4).eval()
    residual = joint_space(
        Task(model, tiny.example_input, tiny.train, tiny.validation), (8,), (1.0, 0.5), students=None, blocks=True
    )
    whole = residual.uniform(keep=0.5)
    one = evaluator(residual, tmp_path)
    policy = residual.policy({**whole, "keep/block:stages.1.1": 0})
    record, before = one.evaluate(policy, "recovered"), one.evaluate(residual.policy(whole))
    assert record.error is None
    assert before.values is not None
    assert record.values is not None
    assert record.values["latency_ms@raspberry-pi-4b"] < before.values["latency_ms@raspberry-pi-4b"]
    again = evaluator(residual, tmp_path)
    network = NetworkBuilder(again, Record.from_line(record.to_line()))()
    assert "stages.1.1.conv1" not in network.plan.weights
    assert {name: score.value for name, score in again.score(network).items()} == record.values


def test_a_damaged_network_is_refused(joint: JointSpace, tmp_path: Path) -> None:
    one = evaluator(joint, tmp_path)
    record = one.evaluate(policies(joint)[0], "recovered")
    stored = tmp_path / "artifacts" / f"{record.weights}.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1] + b"\0")
    with pytest.raises(RunError, match="does not hold what its name says"):
        NetworkBuilder(one, record)()


def test_a_full_disk_is_no_failure_of_the_candidate(
    joint: JointSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: CompressedNetwork, directory: Path) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CompressedNetwork, "save", full)
    with pytest.raises(RunError, match="No space left on device; make room"):
        evaluator(joint, tmp_path).evaluate(policies(joint)[0], "recovered")


def race(joint: JointSpace, rivals: list[dict[str, float]]) -> Race:
    directions: dict[str, Direction] = {"latency_ms@raspberry-pi-4b": "minimize", "size_mb": "minimize"}
    return Race(joint.task.metric, directions, 96, rivals)


def test_a_lost_race_is_over_before_all_samples_are_seen(joint: JointSpace, tmp_path: Path) -> None:
    perfect = [{"accuracy": 1.0, "latency_ms@raspberry-pi-4b": 0.0, "size_mb": 0.0}]
    policy = joint.policy(joint.uniform("width=4", 4, 0.5))
    whole = evaluator(joint, tmp_path).evaluate(policy)
    stopped = evaluator(joint, tmp_path).evaluate(policy, race=race(joint, perfect))
    assert (whole.samples, stopped.samples) == (None, 64)
    assert whole.scores is not None
    assert stopped.scores is not None
    assert stopped.scores["size_mb"] == whole.scores["size_mb"]
    assert (stopped.scores["accuracy"].error or 0) > (whole.scores["accuracy"].error or 0)
    assert Record.from_line(stopped.to_line()).samples == 64


@pytest.mark.parametrize(
    "rivals",
    [
        [],
        [{"accuracy": 1.0, "latency_ms@raspberry-pi-4b": 9e9, "size_mb": 0.0}],
        [{"accuracy": 0.0, "latency_ms@raspberry-pi-4b": 0.0, "size_mb": 0.0}],
    ],
    ids=["no rival", "a dearer one", "a worse one"],
)
def test_a_race_that_is_not_lost_changes_nothing(
    joint: JointSpace, tmp_path: Path, rivals: list[dict[str, float]]
) -> None:
    policy = joint.policy(joint.uniform("width=4", 4, 0.5))
    found = evaluator(joint, tmp_path).evaluate(policy, race=race(joint, rivals))
    assert found.samples is None
    assert found.scores == evaluator(joint, tmp_path).evaluate(policy).scores


def test_the_full_fidelity_trains_for_longer(joint: JointSpace, tmp_path: Path) -> None:
    policy = policies(joint)[0]
    longer = evaluator(joint, tmp_path)
    longer.settings = replace(tiny_problem.FAST, full=replace(tiny_problem.FAST.recovery, steps=5))
    records = [longer.evaluate(policy, fidelity) for fidelity in FIDELITIES]
    assert [record.error for record in records] == [None] * 3
    assert records[0].weights is None
    assert records[1].weights != records[2].weights
    assert NetworkBuilder(longer, records[2])().policy == policy


def test_the_full_fidelity_needs_its_steps(joint: JointSpace, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="full_steps"):
        evaluator(joint, tmp_path).evaluate(policies(joint)[0], "full")
