"""When to stop, and how long it will take."""

from __future__ import annotations

from kneepoint.search.budget import RECENT, Budget


def test_trials_end_it() -> None:
    budget = Budget(2, None)
    seen = []
    for _ in range(3):
        seen.append(budget.spent)
        budget.spend(1.0)
    assert seen == [False, False, True]


def test_minutes_end_it_but_not_before_one_candidate() -> None:
    budget = Budget(100, 0.5)
    budget.elapsed = 31.0
    before = budget.spent
    budget.spend(0.0)
    assert (before, budget.spent) == (False, True)


def test_slow_first_trials_do_not_inflate_the_estimate() -> None:
    budget = Budget(100, None)
    first = budget.seconds_left
    for _ in range(RECENT // 2):
        budget.spend(30.0)  # trained a student
    for _ in range(RECENT // 2 + 1):
        budget.spend(0.1)
    assert first is None
    assert abs((budget.seconds_left or 0.0) - 0.1 * (100 - RECENT)) < 1e-6


def test_the_estimate_is_never_beyond_the_minutes() -> None:
    budget = Budget(1000, 1.0)
    assert budget.seconds_left == 60.0
    budget.spend(50.0)
    assert budget.seconds_left == 10.0
    budget.spend(50.0)
    assert budget.seconds_left == 0.0


def test_what_is_under_way_counts_as_begun() -> None:
    budget = Budget(4, None)
    budget.spend(1.0)
    assert [budget.spent_with(count) for count in (2, 3)] == [False, True]


def test_candidates_that_are_measured_at_the_same_time_take_less_each() -> None:
    budget = Budget(100, None)
    for _ in range(RECENT):
        budget.spend(1.0, own_seconds=4.0, at_once=4)
    assert budget.elapsed == RECENT
    assert abs((budget.seconds_left or 0.0) - (100 - RECENT)) < 1e-6
