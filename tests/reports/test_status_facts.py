"""What the records of a log say, on records whose sums are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from kneepoint.reports.status_facts import (
    Failure,
    FidelityFacts,
    Labour,
    Pace,
    by_fidelity,
    failures_of,
    labour_of,
    pace_of,
    seconds_measuring,
)
from kneepoint.search.record import Record
from tests.reports.small_run import NOW, record


def every(seconds: float, count: int, last: float = NOW) -> list[Record]:
    """Trials of one worker that never rests."""
    return [record(f"{at}", seconds=seconds, ended=last - at * seconds) for at in range(count)]


def test_trials_by_fidelity_from_cheap_to_dear() -> None:
    records = [
        record("a", "full", 8.0),
        record("a", "ptq", 1.0),
        record("b", "ptq", 0.5, error="broken"),
        record("c", "ptq", math.nan),
    ]
    found = by_fidelity(records)
    assert list(found) == ["ptq", "full"]
    assert found == {"ptq": FidelityFacts(3, 1, 1.5), "full": FidelityFacts(1, 0, 8.0)}
    assert by_fidelity([]) == {}


def test_failures_differ_by_more_than_numbers_and_ids() -> None:
    records = [
        record("a", error="it lost its way"),
        record("b", error="no room for 1.5 GB of deadbeef01"),
        record("c", error="no room for 22 GB of 0123456789abcdef"),
        record("d"),
    ]
    assert failures_of(records) == [
        Failure("no room for 22 GB of 0123456789abcdef", 2, records[2].id),
        Failure("it lost its way", 1, records[0].id),
    ]
    assert failures_of([records[3]]) == []


def test_failures_of_a_log_with_a_reason_that_is_no_text() -> None:
    odd = replace(record("a", error="x"), error=7)  # type: ignore[arg-type]  # as a log may have it
    assert failures_of([odd]) == [Failure("7", 1, odd.id)]


def test_the_pace_of_a_worker_that_never_rests() -> None:
    pace = pace_of(every(6.0, 300), NOW, 0.0)
    assert pace.last_10_minutes == pytest.approx(10.0)
    assert pace.all == pytest.approx(10.0)


def test_the_recent_pace_is_over_less_after_a_late_start() -> None:
    records = [*every(6.0, 20, last=NOW - 5000), record("new", seconds=6.0, ended=NOW - 1)]
    assert pace_of(records, NOW, NOW - 60).last_10_minutes == pytest.approx(1.0)
    assert pace_of(records, NOW, 0.0).last_10_minutes == pytest.approx(0.1)


def test_a_pause_does_not_count() -> None:
    records = every(6.0, 50, last=NOW - 1e6) + every(6.0, 50)
    named = [replace(one, worker=f"{at}") for at, one in enumerate(records)]
    assert pace_of(named, NOW, 0.0).all == pytest.approx(10.0)


def test_two_workers_are_twice_as_fast() -> None:
    assert pace_of(every(6.0, 50) + every(6.0, 50, last=NOW - 3), NOW, 0.0).all == pytest.approx(20.0, rel=0.02)


@pytest.mark.parametrize("ended", [0.0, -1.0, math.nan, math.inf])
def test_no_pace_without_times(ended: float) -> None:
    assert pace_of([record("a", ended=ended)], NOW, 0.0) == Pace(None, None)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -3.0, 1e300])
def test_times_that_are_none_break_nothing(seconds: float) -> None:
    one = record("a", seconds=seconds, ended=NOW)
    assert pace_of([one], NOW, 0.0) == Pace(None, None)
    assert seconds_measuring([one], 0.0, NOW) == 0.0
    assert labour_of([one]) == {one.worker: Labour(1, 0.0)}


def test_what_each_worker_did() -> None:
    records = [record("a", worker="x"), record("b", worker="y", seconds=1.0), record("c", worker="x"), record("d")]
    lost = replace(record("e", error="WorkerLost"), worker="")
    found = labour_of([*records, lost])
    assert found == {"x": Labour(2, 4.0), "y": Labour(1, 1.0), "there:worker-0": Labour(1, 2.0)}


def test_seconds_of_measuring_are_those_between_two_times() -> None:
    records = [record("a", seconds=10.0, ended=105.0), record("b", seconds=10.0, ended=50.0), record("c", seconds=9.0)]
    assert seconds_measuring(records, 100.0, 200.0) == pytest.approx(5.0)
    assert seconds_measuring(records, 40.0, 100.0) == pytest.approx(15.0)
