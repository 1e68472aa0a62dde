"""Between a search and its workers: claims, hands out, logs what comes back, and tries again what was lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from kneepoint.search.log_store import Log
from kneepoint.search.record import SLICE_FIDELITIES, Record
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.executor import Executor
from kneepoint.search.workers.worker_state import WorkerState
from kneepoint.spaces.policy import Policy

TICK = 1.0
"""Seconds between two looks at what other drivers did."""


class Listener(Protocol):
    """Hears of what becomes of assignments."""

    def started(self, assignment: Assignment) -> None:
        """It was handed out."""

    def ended(self, record: Record) -> None:
        """It is in the log."""

    def lost(self, assignment: Assignment, reason: str, again: bool) -> None:
        """Its worker was lost; it is measured again, or not."""


class Dispatcher:
    """Keeps workers busy with what nobody has measured, and the log complete.

    A student's first assignment trains it; others that need the same student wait until it is there, so that it is
    trained once.

    Args:
        executor: Measures.
        log: Keeps the records.
        retries: How often an assignment is handed out again that was lost with its worker.
        store: Takes the files that came with an outcome, before it is logged.
        listener: Told of everything.
    """

    def __init__(
        self,
        executor: Executor,
        log: Log,
        retries: int,
        store: Callable[[Outcome], None],
        listener: Listener,
    ) -> None:
        self._executor = executor
        self._log = log
        self._retries = retries
        self._store = store
        self._listener = listener
        self._running: dict[str, Assignment] = {}
        self._held: list[Assignment] = []
        self._elsewhere: dict[str, Assignment] = {}
        self._losses: Counter[str] = Counter()
        self._trained: set[object] = {_student(Policy.build())} | {
            _student(record.policy) for record in log.records if _is_trained(record)
        }

    @property
    def room(self) -> int:
        """Assignments that may be started now."""
        return max(0, self._executor.room - len(self._held))

    @property
    def slots(self) -> int:
        """Assignments that can be under way at the same time."""
        return self._executor.room + len(self._running)

    def start(self, assignment: Assignment) -> None:
        """Have something measured that is not in the log, unless another driver does it already."""
        if not self._log.claim(assignment.policy.id, assignment.fidelity):
            self._elsewhere[assignment.id] = assignment
        elif self._must_wait(assignment):
            self._held.append(assignment)
        else:
            self._submit(assignment)

    def finished(self, seconds: float = TICK) -> list[Record]:
        """What has ended meanwhile and is durable in the log, also by other drivers; empty if nothing did.

        Raises:
            KneepointError: If the job is wrong, or its log cannot be written.
        """
        outcomes = self._executor.wait(seconds)
        records = [record for outcome in outcomes if (record := self._settled(outcome)) is not None]
        self._resume_held()
        return records + self._news(bool(outcomes))

    def measured(self, assignments: Iterable[Assignment]) -> Iterator[Record]:
        """The records of all ``assignments``: the log's, or new ones, as they end."""
        waiting: set[str] = set()
        for assignment in assignments:
            known = self._log.find(assignment.policy.id, assignment.fidelity)
            if known is not None:
                yield known
                continue
            if assignment.id in waiting:
                continue
            waiting.add(assignment.id)
            self.start(assignment)
            while waiting and not self.room:
                yield from self._awaited(waiting)
        while waiting:
            yield from self._awaited(waiting)

    def workers(self) -> Sequence[WorkerState]:
        """What every worker does."""
        return self._executor.workers()

    def close(self) -> None:
        """Stop the workers; what is under way is given up, for this driver or another to measure."""
        self._executor.close()
        self._log.close()

    def _awaited(self, waiting: set[str]) -> Iterator[Record]:
        """What has ended of those that are waited for."""
        for record in self.finished():
            if record.id in waiting:
                waiting.remove(record.id)
                yield record

    def _must_wait(self, assignment: Assignment) -> bool:
        """Whether its student is being trained for another."""
        student = _student(assignment.policy)
        return student not in self._trained and any(
            _student(other.policy) == student for other in self._running.values()
        )

    def _submit(self, assignment: Assignment) -> None:
        self._running[assignment.id] = assignment
        self._listener.started(assignment)
        self._executor.submit(assignment)

    def _resume_held(self) -> None:
        """Submit those that wait for nothing any more, as far as there is room."""
        for assignment in tuple(self._held):
            if self._executor.room and not self._must_wait(assignment):
                self._held.remove(assignment)
                self._submit(assignment)

    def _settled(self, outcome: Outcome) -> Record | None:
        """The record of an outcome, in the log; None for one that is tried again."""
        if outcome.error is not None:
            raise outcome.error
        record = outcome.record or self._lost(outcome)
        if record is None:
            return None
        self._running.pop(outcome.assignment.id, None)
        self._store(outcome)
        kept = self._log.append(replace(record, ended=time.time()))
        if _is_trained(kept):
            self._trained.add(_student(kept.policy))
        self._listener.ended(kept)
        return kept

    def _lost(self, outcome: Outcome) -> Record | None:
        """A failure, where it was lost too often; nothing, where it is handed out again."""
        assignment, reason = outcome.assignment, outcome.lost or "it was lost"
        self._losses[assignment.id] += 1
        again = self._losses[assignment.id] <= self._retries
        self._listener.lost(assignment, reason, again)
        if again:
            self._running.pop(assignment.id, None)
            self._held.append(assignment)
            return None
        error = f"WorkerLost: {reason}; that happened {self._losses[assignment.id]} times in a row"
        policy, fidelity, baseline = assignment.policy, assignment.fidelity, assignment.baseline
        return Record(policy, fidelity, None, 0.0, "", error, baseline, assignment.parameters)

    def _news(self, was_busy: bool) -> list[Record]:
        """What other drivers logged; and what they gave up is done here."""
        records = self._log.refresh()
        for record in records:
            self._elsewhere.pop(record.id, None)
            if _is_trained(record):
                self._trained.add(_student(record.policy))
        if not was_busy:
            for assignment in tuple(self._elsewhere.values()):
                if self._executor.room and self._log.claim(assignment.policy.id, assignment.fidelity):
                    del self._elsewhere[assignment.id]
                    self._submit(assignment)
        return records


def _is_trained(record: Record) -> bool:
    """Whether a measurement shows that its student is trained to its end."""
    return record.scores is not None and record.fidelity not in SLICE_FIDELITIES


def _student(policy: Policy) -> object:
    """What is trained for a policy."""
    return policy.student
