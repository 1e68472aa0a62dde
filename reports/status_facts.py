"""What the records of a trial log say of how a run goes: its trials, failures and pace, and who measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kneepoint.search.record import FIDELITIES, SLICE_FIDELITIES, Record

RECENTLY = 600.0
"""Seconds that the recent pace is of."""
PAUSE = 60.0
"""Seconds in which nothing is measured, after which a run is taken to have been stopped meanwhile."""
_LONGEST = 1e9
_LATEST = 1e11
"""Seconds and Unix times beyond these are no times."""
_SHORTEST = 1e-3
"""Seconds that times in a log are exact to."""
_VARYING = re.compile(r"[0-9a-f]{8,}|[0-9]+(\.[0-9]+)?")
"""What reasons of one kind differ in: ids, sizes, times."""


@dataclass(frozen=True)
class FidelityFacts:
    """The trials of one fidelity.

    Attributes:
        trials: How many ended, baselines included.
        failed: How many of them failed.
        seconds: That all of them took, each by itself.
    """

    trials: int
    failed: int
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Trials that failed for one reason.

    Attributes:
        reason: As the last of them has it; numbers and ids in it may differ between them.
        count: How many.
        example: The id of the last.
    """

    reason: str
    count: int
    example: str


@dataclass(frozen=True)
class Pace:
    """Trials a minute; None where that cannot be known.

    Attributes:
        last_10_minutes: Before the run was looked at, or before its last trial if it does not go on; over less where
            its driver has not been at work for so long.
        all: Over the whole log, pauses aside.
    """

    last_10_minutes: float | None
    all: float | None


@dataclass(frozen=True)
class Labour:
    """What one worker did, over the whole log: how many trials, and the seconds that they took."""

    trials: int
    seconds: float


def by_fidelity(records: Sequence[Record]) -> dict[str, FidelityFacts]:
    """The trials of every fidelity that there are any of, from cheap to dear."""
    groups = {name: [one for one in records if one.fidelity == name] for name in (*SLICE_FIDELITIES, *FIDELITIES)}
    return {
        name: FidelityFacts(len(group), sum(one.scores is None for one in group), sum(map(seconds_of, group)))
        for name, group in groups.items()
        if group
    }


def failures_of(records: Iterable[Record]) -> list[Failure]:
    """The failures by reason, most frequent first; reasons that differ in numbers and ids alone are one."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.scores is None:
            found.setdefault(_VARYING.sub("#", str(record.error)), []).append(record)
    groups = sorted(found.values(), key=len, reverse=True)
    return [Failure(str(group[-1].error), len(group), group[-1].id) for group in groups]


def pace_of(records: Iterable[Record], until: float, since: float) -> Pace:
    """How fast trials end.

    Args:
        records: Of the whole log; those without a time do not count.
        until: Unix time at which the last ten minutes end.
        since: Unix time at which they begin at the earliest.
    """
    timed = sorted((one for one in records if _has_time(one)), key=lambda one: one.ended)
    if not timed:
        return Pace(None, None)
    since = max(since, until - RECENTLY, timed[0].ended - seconds_of(timed[0]))
    recent = sum(since < one.ended <= until for one in timed)
    return Pace(_a_minute(recent, until - since), _a_minute(len(timed), _seconds_at_work(timed)))


def labour_of(records: Iterable[Record]) -> dict[str, Labour]:
    """What every worker did, by its name, in the order of their first trials; what was lost has no worker."""
    found: dict[str, Labour] = {}
    for record in records:
        if record.worker:
            before = found.get(record.worker, Labour(0, 0.0))
            found[record.worker] = Labour(before.trials + 1, before.seconds + seconds_of(record))
    return found


def seconds_measuring(records: Iterable[Record], since: float, until: float) -> float:
    """Seconds between two Unix times in which the trials of ``records`` were measured, summed over the workers."""
    timed = (one for one in records if _has_time(one))
    spans = ((max(one.ended - seconds_of(one), since), min(one.ended, until)) for one in timed)
    return sum(max(end - start, 0.0) for start, end in spans)


def seconds_of(record: Record) -> float:
    """What a trial took; 0 where the log has no such number."""
    return record.seconds if 0 < record.seconds < _LONGEST else 0.0


def _seconds_at_work(timed: Sequence[Record]) -> float:
    """Wall time of trials in the order they ended: each since the one before it, or by itself after a pause."""
    before, seconds = -math.inf, 0.0
    for record in timed:
        own, between = seconds_of(record), record.ended - before
        seconds += between if between <= own + PAUSE else own
        before = record.ended
    return seconds


def _a_minute(count: int, seconds: float) -> float | None:
    return 60 * count / seconds if seconds >= _SHORTEST else None


def _has_time(record: Record) -> bool:
    return 0 < record.ended < _LATEST
