"""Candidates that climb, one at a time, beside the search or after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kneepoint.search.climb import Climb
from kneepoint.search.front import Candidate
from kneepoint.search.promotion import Promotion
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace
from tests.search import tiny_problem


@pytest.fixture
def trials(joint: JointSpace, tmp_path: Path) -> Iterator[Trials]:
    found = Trials(tiny_problem.job(joint), RunDirectory(tmp_path))
    yield found
    found.close()


@pytest.fixture
def candidates(trials: Trials, joint: JointSpace) -> list[Candidate]:
    settings = [joint.uniform("teacher", bits, keep) for bits in (4, 8, 16) for keep in (0.5, 1.0)]
    return [trials.candidate(trials.measure(joint.policy(setting), "ptq")) for setting in settings]


def test_as_many_climb_as_are_wanted_each_once(trials: Trials, candidates: list[Candidate]) -> None:
    climb = Climb("recovered", 2, trials)
    records = list(climb.rest(candidates))
    assert records == climb.records
    assert len({record.policy.id for record in records}) == 2
    assert {record.fidelity for record in records} == {"recovered"}
    assert climb.expected == 2
    assert not climb.wants_more()
    assert list(climb.rest(candidates)) == []


def test_an_earlier_process_counts(trials: Trials, candidates: list[Candidate]) -> None:
    first = Climb("recovered", 1, trials)
    list(first.rest(candidates))
    again = Climb("recovered", 2, trials)
    assert again.records == first.records
    assert len(list(again.rest(candidates))) == 1


def test_a_share_of_them_begins_beside_the_search(trials: Trials, candidates: list[Candidate]) -> None:
    climb = Climb("recovered", 4, trials)
    assert not climb.wants_more(0.0)
    assert climb.wants_more(0.25)
    assert climb.start(candidates)
    assert len(climb.begun) == 1
    assert not climb.wants_more(0.25)
    (record,) = trials.dispatcher.finished()
    assert not climb.take(replace(record, fidelity="ptq"))
    assert not climb.take(replace(record, baseline="uniform 8-bit"))
    assert climb.take(record)
    assert not climb.begun
    assert climb.wants_more(0.5)


def test_what_was_measured_as_a_baseline_is_not_measured_again(trials: Trials, candidates: list[Candidate]) -> None:
    for one in candidates:
        trials.measure(one.policy, "recovered", baseline="all of them")
    count = len(trials.log.records)
    climb = Climb("recovered", 2, trials)
    assert climb.records == []
    list(climb.rest(candidates))
    assert len(climb.records) == 2
    assert len(trials.log.records) == count


def test_where_nobody_is_expected_to_add_anything_it_is_not_asked_all_the_time(
    trials: Trials, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def nobody(self: Promotion, *_: object) -> None:
        asked.append(len(self.waiting))

    monkeypatch.setattr(Promotion, "next", nobody)
    climb = Climb("recovered", 3, trials)
    assert not any(climb.start(candidates) for _ in range(5))
    assert asked == [6]
    assert not climb.start([*candidates, candidates[0]])
    assert asked == [6, 7]
