"""What a job tells its sampler."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kneepoint.objectives import Accuracy, Latency, Size
from kneepoint.search.job_advice import advice_of
from kneepoint.search.progress import Progress, Status
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.samplers import anchors
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace
from tests.search import tiny_problem


def trials_of(joint: JointSpace, path: Path, **changes: object) -> Trials:
    directory = RunDirectory(path)
    job = tiny_problem.job(joint, **changes)
    directory.open_for(job)
    try:
        return Trials(job, directory)
    finally:
        directory.unlock()


def test_there_is_a_front_for_all_and_one_for_each_of_several_devices(joint: JointSpace, tmp_path: Path) -> None:
    one = advice_of(trials_of(joint, tmp_path / "one"), Progress())
    assert one.fronts == [[0, 1, 2]]
    objectives = [Accuracy(), Latency("raspberry-pi-4b"), Latency("x86-server"), Size()]
    two = advice_of(trials_of(joint, tmp_path / "two", objectives=objectives), Progress())
    assert two.fronts == [[0, 1, 2, 3], [0, 1, 3], [0, 2, 3]]
    assert list(two.saturating) == [True, False, False, False]


def test_prices_are_the_objectives_own_scores(joint: JointSpace, tmp_path: Path) -> None:
    trials = trials_of(joint, tmp_path)
    advice = advice_of(trials, Progress())
    assert advice.price is not None
    settings = anchors(joint)[:3]
    told = advice.price(settings)
    for row, setting in zip(told, settings, strict=True):
        values = trials.measure(joint.policy(setting), "ptq").values
        assert np.isnan(row[0])
        assert row[1:].tolist() == [values["latency_ms@raspberry-pi-4b"], values["size_mb"]]


def test_a_policy_that_cannot_be_priced_tells_nothing_and_ends_nothing(
    joint: JointSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = trials_of(joint, tmp_path)
    price = advice_of(trials, Progress()).price
    assert price is not None

    def fail(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Size, "score", fail)
    assert np.isnan(price(anchors(joint)[:1])).all()


def test_limits_are_those_of_the_constraints(joint: JointSpace, tmp_path: Path) -> None:
    constraints = ["accuracy_drop <= 0.05", "size_mb <= 0.001", "latency_ms@raspberry-pi-4b >= 0"]
    trials = trials_of(joint, tmp_path, constraints=constraints)
    advice = advice_of(trials, Progress())
    accuracy, _, size = trials.axes
    assert advice.limits == pytest.approx(
        [accuracy.scale(trials.teacher_values["accuracy"] - 0.05), 1.0, size.scale(0.001)]
    )


def test_sensitivities_are_measured_once_a_run(joint: JointSpace, tmp_path: Path) -> None:
    stages: list[str] = []

    def observe(status: Status) -> None:
        stages.append(status.stage)

    trials = trials_of(joint, tmp_path)
    first = advice_of(trials, Progress(observe))
    assert set(stages) == {"measuring sensitivities"}
    stages.clear()
    assert advice_of(trials, Progress(observe)).contributions == first.contributions
    assert stages == []


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "other", "values": {}}', '{"values": 3}'])
def test_a_damaged_file_of_sensitivities_is_made_again(joint: JointSpace, tmp_path: Path, content: str) -> None:
    trials = trials_of(joint, tmp_path)
    path = trials.directory.sensitivities_file
    path.write_text(content)
    advice_of(trials, Progress())
    assert json.loads(path.read_text())["schema"] == "kneepoint.sensitivities/1"


def test_sensitivities_of_another_space_are_not_taken(joint: JointSpace, tmp_path: Path) -> None:
    trials = trials_of(joint, tmp_path)
    trials.directory.write_sensitivities({"bits/other": [1.0, 0.0]})
    contributions, *_ = advice_of(trials, Progress()).contributions
    assert set(contributions) == set(joint.choices)
