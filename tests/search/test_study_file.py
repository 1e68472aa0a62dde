"""The study that others open, also while it grows."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from kneepoint.search import study_file
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.study_file import StudyFile
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import RunError
from tests.search import tiny_problem
from tests.search.test_mirror import records


@pytest.fixture
def trials(joint: JointSpace, tmp_path: Path) -> Trials:
    """A run with a constraint of which the teacher alone was measured."""
    return Trials(tiny_problem.job(joint, constraints=["size_mb <= 0.001"]), RunDirectory(tmp_path))


def write(path: Path, told: list[Record], trials: Trials) -> StudyFile:
    with StudyFile.at(path, trials.job) as study:
        for record in told:
            study.add(record, trials.violations(record))
    return study


def opened(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="kneepoint", storage=f"sqlite:///{path}")


def test_optuna_opens_the_study_with_everything_in_it(trials: Trials, joint: JointSpace, tmp_path: Path) -> None:
    first, second = records(joint)
    for _ in range(2):  # the second time nothing is new
        write(tmp_path / "study.db", [first, second], trials)
    study = opened(tmp_path / "study.db")
    assert study.metric_names == ["accuracy", "latency_ms@raspberry-pi-4b", "size_mb"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    complete, failed = study.trials
    assert complete.params == first.parameters
    assert complete.values == [0.9, 0.3, 0.003]
    assert list(complete.constraints.values()) == [pytest.approx(0.002)]
    assert complete.user_attrs["policy_id"] == first.policy.id
    assert (failed.state, failed.user_attrs["error"]) == (TrialState.FAIL, "broken")
    assert complete.distributions == joint.distributions


def test_it_grows_while_the_search_goes_on(trials: Trials, joint: JointSpace, tmp_path: Path) -> None:
    first, second = records(joint)
    with StudyFile.at(tmp_path / "study.db", trials.job) as study:
        study.add(first, [0.0])
        for _ in range(200):
            time.sleep(0.05)
            if len(opened(tmp_path / "study.db").trials) == 1:
                break
        else:
            pytest.fail("nothing was mirrored in ten seconds")
        study.add(second, [])
    assert len(opened(tmp_path / "study.db").trials) == 2


def test_what_the_sampler_did_not_propose_is_no_trial(trials: Trials, tmp_path: Path) -> None:
    write(tmp_path / "study.db", trials.log.records, trials)  # the teacher
    assert opened(tmp_path / "study.db").trials == []


def test_a_file_that_is_no_study_is_made_anew(trials: Trials, joint: JointSpace, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    write(tmp_path / "study.db", records(joint), trials)
    assert len(opened(tmp_path / "study.db").trials) == 2


def test_what_there_was_no_time_for_is_counted_and_comes_later(
    trials: Trials, joint: JointSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "_AT_THE_END", -1.0)
    first = write(tmp_path / "study.db", records(joint), trials)
    assert 1 <= first.left_out <= 2
    monkeypatch.setattr(study_file, "_AT_THE_END", 60.0)
    assert write(tmp_path / "study.db", records(joint), trials).left_out == 0
    assert len(opened(tmp_path / "study.db").trials) == 2


def test_a_study_that_cannot_be_written_is_said(trials: Trials, joint: JointSpace, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*study.db"):
        write(tmp_path / "nowhere" / "study.db", records(joint), trials)


def test_the_search_s_own_error_is_the_one_to_hear_of(trials: Trials, tmp_path: Path) -> None:
    with pytest.raises(KeyError), StudyFile.at(tmp_path / "nowhere" / "study.db", trials.job):
        raise KeyError("of the search")
