"""The study that others open."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from kneepoint.search.mirror import StudyMirror, write_study
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.sampling.trial_memory import STANDARD_ERRORS
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import RunError
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


def test_optuna_opens_the_study_with_everything_in_it(trials: Trials, joint: JointSpace, tmp_path: Path) -> None:
    first, second = records(joint)
    directory = RunDirectory(tmp_path)
    for _ in range(2):  # the second time over the first
        write_study(directory, [first, second], trials)
    study = optuna.load_study(study_name="kneepoint", storage=f"sqlite:///{directory.study_file}")
    assert study.metric_names == ["accuracy", "latency_ms@raspberry-pi-4b", "size_mb"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    complete, failed = study.trials
    assert complete.params == first.parameters
    assert complete.values == [0.9, 0.3, 0.003]
    assert list(complete.constraints.values()) == [pytest.approx(0.002)]
    assert complete.user_attrs["policy_id"] == first.policy.id
    assert (failed.state, failed.user_attrs["error"]) == (TrialState.FAIL, "broken")
    assert complete.distributions == joint.distributions


def test_ask_and_tell(trials: Trials, joint: JointSpace) -> None:
    mirror = StudyMirror.of(trials.job, optuna.samplers.RandomSampler(0))
    trial = mirror.ask()
    assert trial.params.keys() == joint.distributions.keys()
    scores = {"accuracy": Score(0.5, 0.02), "latency_ms@raspberry-pi-4b": Score(1.0, 0.3), "size_mb": Score(2.0)}
    mirror.tell(trial, scores, [1.999])
    mirror.tell(mirror.ask(), None, [])
    for record in records(joint):
        mirror.add(record, trials.violations(record))
    states = [trial.state.name for trial in mirror.study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "FAIL"]
    assert mirror.study.trials[0].user_attrs[STANDARD_ERRORS] == [0.02, None, None]  # the cost model's is no noise


def test_a_study_that_cannot_be_written_is_said(trials: Trials, joint: JointSpace, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*study.db"):
        write_study(RunDirectory(tmp_path / "nowhere"), records(joint), trials)
