"""Claims, retries and students, with an executor that does as it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from kneepoint.search.dispatcher import Dispatcher
from kneepoint.search.event_log import EventLog
from kneepoint.search.record import Record
from kneepoint.search.trial_log import TrialLog
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.worker_state import WorkerState
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.errors import ObjectiveError
from kneepoint.tasks.metrics import Score


class Scripted:
    """Ends assignments in the order they came, by what a test says of them; what it says nothing of succeeds."""

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.under_way: deque[Assignment] = deque()
        self.begun: list[str] = []
        self.script: dict[str, list[Outcome]] = {}
        self.is_closed = False

    @property
    def room(self) -> int:
        return self.slots - len(self.under_way)

    def submit(self, assignment: Assignment) -> None:
        assert self.room > 0
        self.under_way.append(assignment)
        self.begun.append(assignment.id)

    def wait(self, seconds: float) -> list[Outcome]:
        if not self.under_way:
            return []
        assignment = self.under_way.popleft()
        scripted = self.script.get(assignment.id)
        if scripted:
            return [scripted.pop(0)]
        return [Outcome(assignment, Record(assignment.policy, "ptq", {"accuracy": Score(0.9)}, 0.1, "w"))]

    def workers(self) -> Sequence[WorkerState]:
        return []

    def close(self) -> None:
        self.is_closed = True


def assignment(name: str, width: float | None = None) -> Assignment:
    layers = {name: LayerPolicy.of_bits(8)}
    policy = Policy.build(layers=layers) if width is None else Policy.build({"width": width}, layers=layers)
    return Assignment(policy, "ptq")


@pytest.fixture
def executor() -> Scripted:
    return Scripted()


@pytest.fixture
def log(tmp_path: Path) -> TrialLog:
    return TrialLog(tmp_path / "trials.jsonl")


def dispatcher_of(executor: Scripted, log: TrialLog, retries: int = 1) -> Dispatcher:
    return Dispatcher(executor, log, retries, lambda outcome: None, EventLog(log.path.with_name("events.jsonl")))


def test_all_are_measured_and_what_is_known_is_not_measured_again(executor: Scripted, log: TrialLog) -> None:
    wanted = [assignment(name) for name in "abcdea"]
    first = list(dispatcher_of(executor, log).measured(wanted))
    assert {record.id for record in first} == {one.id for one in wanted}
    assert len(executor.begun) == len(log) == 5
    assert all(record.ended > 0 for record in first)
    list(dispatcher_of(executor, log).measured(wanted))
    assert len(executor.begun) == 5


def test_a_student_is_trained_by_one_while_others_wait(executor: Scripted, log: TrialLog) -> None:
    dispatcher = dispatcher_of(executor, log)
    first, second, other = assignment("a", 0.5), assignment("b", 0.5), assignment("c", 0.25)
    dispatcher.start(first)
    dispatcher.start(second)
    assert (executor.begun, dispatcher.room) == ([first.id], 0)
    assert [record.id for record in dispatcher.finished()] == [first.id]
    dispatcher.start(other)
    assert executor.begun == [first.id, second.id, other.id]
    ended = [record.id for _ in range(2) for record in dispatcher.finished()]
    assert ended == [second.id, other.id]


def test_what_was_lost_is_measured_again_but_not_for_ever(executor: Scripted, log: TrialLog) -> None:
    unlucky, cursed = assignment("a"), assignment("b")
    executor.script[unlucky.id] = [Outcome(unlucky, lost="its worker process ended: SIGTERM")]
    executor.script[cursed.id] = [Outcome(cursed, lost="its worker process ended: SIGSEGV")] * 5
    records = {record.id: record for record in dispatcher_of(executor, log).measured([unlucky, cursed])}
    assert records[unlucky.id].scores is not None
    assert records[cursed.id].error == ("WorkerLost: its worker process ended: SIGSEGV; that happened 2 times in a row")
    assert executor.begun.count(cursed.id) == 2
    assert log.failed == 1


def test_what_is_wrong_with_the_job_is_raised(executor: Scripted, log: TrialLog) -> None:
    wrong = assignment("a")
    executor.script[wrong.id] = [Outcome(wrong, error=ObjectiveError("no number"))]
    with pytest.raises(ObjectiveError, match="no number"):
        list(dispatcher_of(executor, log).measured([wrong]))
    assert len(log) == 0


class Shared(TrialLog):
    """A log of which another driver has claimed something."""

    def __init__(self, path: Path, elsewhere: str) -> None:
        super().__init__(path)
        self.elsewhere: str | None = elsewhere
        self.news: list[Record] = []

    def claim(self, policy_id: str, fidelity: object) -> bool:
        return policy_id != self.elsewhere

    def refresh(self) -> list[Record]:
        news, self.news = self.news, []
        return news


def test_what_another_driver_measures_is_waited_for(executor: Scripted, tmp_path: Path) -> None:
    mine, theirs = assignment("a"), assignment("b")
    log = Shared(tmp_path / "trials.jsonl", theirs.policy.id)
    dispatcher = dispatcher_of(executor, log)
    dispatcher.start(mine)
    dispatcher.start(theirs)
    assert [record.id for record in dispatcher.finished()] == [mine.id]
    log.news = [Record(theirs.policy, "ptq", {"accuracy": Score(0.8)}, 0.1, "elsewhere")]
    assert [record.worker for record in dispatcher.finished()] == ["elsewhere"]
    assert dispatcher.finished() == []
    assert executor.begun == [mine.id]


def test_what_another_driver_gave_up_is_measured_here(executor: Scripted, tmp_path: Path) -> None:
    theirs = assignment("b")
    log = Shared(tmp_path / "trials.jsonl", theirs.policy.id)
    dispatcher = dispatcher_of(executor, log)
    dispatcher.start(theirs)
    assert dispatcher.finished() == []
    log.elsewhere = None
    assert dispatcher.finished() == []  # claimed now, and begun
    assert [record.id for record in dispatcher.finished()] == [theirs.id]
