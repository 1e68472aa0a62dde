"""The study that samplers work on."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from kneepoint.search.mirror import StudyMirror
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.sampling.study_reader import STANDARD_ERRORS
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.metrics import Score
from tests.search import tiny_problem


@pytest.fixture
def trials(joint: JointSpace, tmp_path: Path) -> Trials:
    """A run with a constraint of which the teacher alone was measured."""
    return Trials(tiny_problem.job(joint, constraints=["size_mb <= 0.001"]), RunDirectory(tmp_path))


def records(joint: JointSpace) -> list[Record]:
    settings = [joint.uniform("teacher", 8), joint.uniform("width=4", 4)]
    scores = {"accuracy": Score(0.9), "latency_ms@raspberry-pi-4b": Score(0.3), "size_mb": Score(0.003)}
    first = Record(joint.policy(settings[0]), "ptq", scores, 0.1, "w", parameters=settings[0])
    return [first, Record(joint.policy(settings[1]), "ptq", None, 0.1, "w", "broken", parameters=settings[1])]


def test_ask_and_tell(trials: Trials, joint: JointSpace) -> None:
    mirror = StudyMirror.of(trials.job, optuna.samplers.RandomSampler(0))
    asked = mirror.ask()
    assert asked.parameters.keys() == joint.distributions.keys()
    scores = {"accuracy": Score(0.5, 0.02), "latency_ms@raspberry-pi-4b": Score(1.0, 0.3), "size_mb": Score(2.0)}
    mirror.tell(asked, scores, [1.999])
    mirror.tell(mirror.ask(), None, [])
    for record in records(joint):
        mirror.add(record, trials.violations(record))
    states = [trial.state.name for trial in mirror.study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "FAIL"]
    assert mirror.study.trials[0].user_attrs[STANDARD_ERRORS] == [0.02, None, None]  # the cost model's is no noise
