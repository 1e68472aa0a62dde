"""What a job may ask of its workers."""

from __future__ import annotations

from typing import Any

import pytest

from kneepoint.search.workers.settings import Workers
from kneepoint.tasks.errors import JobError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (3, Workers(3)),
        ({"count": 2, "gpus": 0.5}, Workers(2, gpus=0.5)),
        (Workers(4, memory_gb=2.0), Workers(4, memory_gb=2.0)),
    ],
)
def test_a_count_or_keys_and_values(given: Any, wanted: Workers) -> None:
    assert Workers.of(given) == wanted
    assert Workers.of(wanted.to_json()) == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "count is a whole number of at least 1; got 0"),
        (True, "count is a whole number of at least 1; got True"),
        (1.5, "count is a whole number of at least 1; got 1.5"),
        ({"retries": -1}, "retries is 0 or more; got -1"),
        ({"gpus": float("nan")}, "gpus is a number of at least 0; got nan"),
        ({"timeout_seconds": -5}, "timeout_seconds is a number above 0, or null; got -5"),
        ({"silence_seconds": 0}, "silence_seconds is a number above 0, or null; got 0"),
        ({"memory_gb": "2"}, "memory_gb is a number above 0, or null; got '2'"),
        ({"cuont": 2}, "unknown key 'cuont'; did you mean 'count'"),
    ],
)
def test_numbers_that_no_worker_can_have(given: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        Workers.of(given)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (Workers(), False),
        (Workers(2), True),
        (Workers(silence_seconds=5), True),
        (Workers(timeout_seconds=5), True),
        (Workers(memory_gb=1), True),
    ],
)
def test_limits_need_a_process_that_can_be_stopped(settings: Workers, needed: bool) -> None:
    assert settings.need_processes is needed
