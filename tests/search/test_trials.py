"""When candidates are raced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kneepoint.objectives import Accuracy, Loss, Size
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.task import Task
from tests.search import tiny_problem
from tests.search.test_job_advice import trials_of


def race_of(trials: Trials, joint: JointSpace) -> object:
    record = trials.measure(joint.policy(joint.uniform("teacher", 8, 1.0)), "ptq")
    return trials.race(trials.front([trials.candidate(record)]))


def test_a_candidate_races_the_front(joint: JointSpace, tmp_path: Path) -> None:
    trials = trials_of(joint, tmp_path)
    assert trials.race(trials.front([])) is None
    record = trials.measure(joint.policy(joint.uniform("teacher", 8, 1.0)), "ptq")
    race = trials.race(trials.front([trials.candidate(record)]))
    assert race is not None
    assert (race.samples, race.rivals) == (96, [record.values])
    assert dict(race.directions) == {"latency_ms@raspberry-pi-4b": "minimize", "size_mb": "minimize"}


@pytest.mark.parametrize(
    "changes",
    [{"objectives": [Accuracy(), Loss(), Size()]}, {"objectives": [Size()]}, {"measure": "onnxruntime"}],
    ids=["two measured objectives", "nothing measured", "another runtime"],
)
def test_what_is_not_a_mean_over_samples_is_not_raced(
    joint: JointSpace, tmp_path: Path, changes: dict[str, object]
) -> None:
    assert race_of(trials_of(joint, tmp_path, **changes), joint) is None


def test_samples_that_are_not_mixed_are_not_raced(joint: JointSpace, tmp_path: Path) -> None:
    inputs, targets = (torch.cat(part) for part in zip(*joint.task.validation, strict=True))
    order = targets.argsort()
    by_class = [(inputs[order][at : at + 32], targets[order][at : at + 32]) for at in range(0, 96, 32)]
    task = Task(joint.task.model, joint.task.example_input, joint.task.train, by_class)
    sorted_space = tiny_problem.space(task)
    assert race_of(trials_of(sorted_space, tmp_path), sorted_space) is None
