"""The actor between a search and its workers on a Ray cluster: assignments wait here, and outcomes do.

Everything that is somebody's own (policies, records, errors) passes through as bytes, so that the actor needs none of
the user's modules.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from kneepoint.search.workers.worker_state import WorkerState

SILENCE = 20.0
"""Seconds after which a worker that was not heard of is taken for lost."""
OVER, UNKNOWN, REPLACED = ("over", b""), ("unknown", b""), ("replaced", b"")
_POLL = 0.25


@dataclass
class _Member:
    """A worker as the hub knows it."""

    node: str
    heard: float
    life: str
    since: float = field(default_factory=time.time)
    given: str | None = None
    done: int = 0


@dataclass(frozen=True)
class Delivery:
    """What the search hears.

    Attributes:
        outcomes: As workers packed them.
        lost: Ids of assignments whose worker was lost, and why.
        workers: All that are there.
        epoch: Of the hub: another one, if it was lost and started anew, knowing nothing.
    """

    outcomes: list[bytes]
    lost: list[tuple[str, str]]
    workers: list[WorkerState]
    epoch: str


class Hub:
    """Keeps assignments until a worker asks, and outcomes until the search asks; all methods run in one event loop.

    Args:
        silence: Seconds after which a worker that was not heard of is taken for lost.
    """

    def __init__(self, silence: float) -> None:
        self._silence = silence
        self._epoch = uuid.uuid4().hex
        self._queue: deque[tuple[str, bytes]] = deque()
        self._members: dict[str, _Member] = {}
        self._outcomes: list[bytes] = []
        self._lost: list[tuple[str, str]] = []
        self._files: dict[str, list[Any]] = {}
        self._is_over = False
        self._work, self._news = asyncio.Event(), asyncio.Event()

    async def stir(self) -> None:
        """Answers when the hub has begun, which on a busy node takes a while."""

    async def push(self, name: str, assignment: bytes) -> None:
        """Have ``assignment`` (its id is ``name``) measured by whoever asks next."""
        self._queue.append((name, assignment))
        self._work.set()

    async def join(self, worker: str, life: str, node: str) -> None:
        """A worker begins; one of the same name before it is gone, and what it measured with it.

        ``life`` tells them apart: the one before may live on behind a link that was cut, and ask when it is back.
        """
        self._lose(worker, "its worker was started anew")
        self._members[worker] = _Member(node, time.monotonic(), life)

    async def next(self, worker: str, life: str, seconds: float) -> tuple[str, bytes] | None:
        """The id of the next assignment, and the assignment; None where there is none yet.

        ``OVER`` where there will be none any more, ``UNKNOWN`` to a worker that has to join (again),
        ``REPLACED`` to one whose name another has meanwhile.
        """
        deadline = time.monotonic() + seconds
        while not self._queue and not self._is_over and self._hear(worker, life) is not None:
            if time.monotonic() >= deadline:
                return None
            self._work.clear()
            await _set_or_timeout(self._work, _POLL)
        if self._is_over:
            return OVER
        member = self._hear(worker, life)
        if member is None:
            return REPLACED if worker in self._members else UNKNOWN
        if member.given is not None:  # whoever asks has nothing: the answer to an earlier call never came there
            self._lost.append((member.given, f"its worker never got it (on {member.node})"))
            self._news.set()
        member.given, assignment = self._queue.popleft()
        member.since = time.time()
        return member.given, assignment

    async def beat(self, worker: str, life: str) -> bool:
        """A worker is still at it; False where it was taken for lost, so that it need not go on."""
        return self._hear(worker, life) is not None and not self._is_over

    async def ended(self, worker: str, life: str, name: str, outcome: bytes) -> None:
        """What came of an assignment; ignored where its worker was taken for lost, as another measures it again."""
        member = self._hear(worker, life)
        if member is None or member.given != name:
            return
        member.given, member.since, member.done = None, time.time(), member.done + 1
        self._outcomes.append(outcome)
        self._news.set()

    async def drain(self, seconds: float) -> Delivery:
        """What ended since the last call; waits so long for something to end."""
        deadline = time.monotonic() + seconds
        while not self._outcomes and not self._lost and time.monotonic() < deadline:
            self._lose_the_silent()
            self._news.clear()
            await _set_or_timeout(self._news, min(_POLL, max(deadline - time.monotonic(), 0.0)))
        outcomes, self._outcomes = self._outcomes, []
        lost, self._lost = self._lost, []
        return Delivery(outcomes, lost, [self._state(name) for name in self._members], self._epoch)

    async def offer(self, name: str, reference: list[Any]) -> None:
        """A file that workers of any node may need, in the object store."""
        self._files[name] = reference

    async def files(self, known: Collection[str]) -> dict[str, list[Any]]:
        """The files that a node does not have yet."""
        return {name: reference for name, reference in self._files.items() if name not in known}

    async def stop(self) -> None:
        """Tell workers that there will be nothing more."""
        self._is_over = True
        self._work.set()

    def _hear(self, worker: str, life: str) -> _Member | None:
        member = self._members.get(worker)
        if member is None or member.life != life:
            return None
        member.heard = time.monotonic()
        return member

    def _lose_the_silent(self) -> None:
        now = time.monotonic()
        for name in [name for name, member in self._members.items() if now - member.heard > self._silence]:
            self._lose(name, f"its worker was not heard of for {self._silence:g} s")

    def _lose(self, worker: str, reason: str) -> None:
        member = self._members.pop(worker, None)
        if member is not None and member.given is not None:
            self._lost.append((member.given, f"{reason} (on {member.node})"))
            self._news.set()

    def _state(self, name: str) -> WorkerState:
        member = self._members[name]
        state = WorkerState(name, member.node, "measuring" if member.given else "idle", member.given, member.since)
        return WorkerState(state.name, state.node, state.state, state.trial, state.since, member.done)


async def _set_or_timeout(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
