"""Who climbs to the next fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kneepoint.search.axis import Axis
from kneepoint.search.front import Candidate
from kneepoint.search.promotion import Promotion
from tests.search.conftest import MakeCandidate

EVERYTHING = [[0, 1, 2]]


def promotion(waiting: Sequence[Candidate], axes: tuple[Axis, ...], **changes: Any) -> Promotion:
    arguments: dict[str, Any] = {
        "repaired": [True, False, False],
        "fronts": EVERYTHING,
        "limits": [1.0, 1.0, 1.0],
        "hidden": False,
        "seed": 0,
        **changes,
    }
    return Promotion(waiting, axes, **arguments)


@pytest.fixture
def waiting(candidate: MakeCandidate) -> list[Candidate]:
    """A sound network, a ruined one that is cheaper, and one that is worse than both in everything."""
    return [
        candidate(0.95, 5.0, 0.5, name="sound"),
        candidate(0.40, 1.0, 0.1, name="ruined"),
        candidate(0.35, 6.0, 0.6, name="dominated"),
    ]


def climbs(one: Candidate, candidate: MakeCandidate, accuracy: float) -> Candidate:
    values = {name: score.value for name, score in one.scores.items()}
    (name,) = one.policy.layer_of
    return candidate(accuracy, values["latency_ms@pi"], values["size_mb"], name=name, fidelity="recovered")


def test_nobody_is_measured_twice_and_the_end_comes(
    waiting: list[Candidate], axes: tuple[Axis, ...], candidate: MakeCandidate
) -> None:
    ladder, climbed = promotion(waiting, axes), list[Candidate]()
    while (found := ladder.next(climbed)) is not None:
        assert found.policy.id not in {one.policy.id for one in climbed}
        climbed.append(climbs(found, candidate, found.values["accuracy"]))
    assert {one.policy.id for one in climbed} >= {waiting[0].policy.id, waiting[1].policy.id}


def test_what_failed_up_there_is_not_tried_again(waiting: list[Candidate], axes: tuple[Axis, ...]) -> None:
    ladder = promotion(waiting, axes)
    first = ladder.next([])
    assert first is not None
    second = ladder.next([], [first.policy.id])
    assert second is not None
    assert second != first


def test_the_dominated_wait_for_the_others(waiting: list[Candidate], axes: tuple[Axis, ...]) -> None:
    ladder = promotion(waiting, axes)
    assert ladder.next([]) != waiting[2]
    assert ladder.next([], [waiting[0].policy.id]) == waiting[1]


def test_a_ruined_network_climbs_once_others_are_seen_to_recover(
    candidate: MakeCandidate, axes: tuple[Axis, ...]
) -> None:
    """Its accuracy breaks a constraint before training, and is expected to hold it afterwards."""
    best = candidate(0.95, 9.0, 0.9, name="best")
    damaged = [candidate(0.5 + 0.1 * at, 6.0 - at, 0.4 + 0.1 * at, name=f"damaged {at}") for at in range(4)]
    ruined = candidate(0.45, 0.5, 0.05, name="ruined", feasible=False)
    ladder = promotion([best, *damaged, ruined], axes, limits=[0.1, 1.0, 1.0])
    recovered = [climbs(one, candidate, 0.94) for one in damaged]
    unchanged = [climbs(one, candidate, one.values["accuracy"]) for one in damaged]
    assert ladder.next(recovered) == ruined
    assert ladder.next(unchanged) == best


def test_hidden_constraints_let_only_the_feasible_climb(candidate: MakeCandidate, axes: tuple[Axis, ...]) -> None:
    waiting = [candidate(0.9, 5.0, 0.5, name="in"), candidate(0.95, 1.0, 0.1, name="out", feasible=False)]
    ladder = promotion(waiting, axes, hidden=True)
    assert ladder.next([]) == waiting[0]
    assert ladder.next([], [waiting[0].policy.id]) is None


def test_nothing_to_gain_beyond_the_reference(candidate: MakeCandidate, axes: tuple[Axis, ...]) -> None:
    assert promotion([candidate(0.9, 11.0, 0.5)], axes).next([]) is None
    assert promotion([], axes).next([]) is None
