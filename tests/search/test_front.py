"""The front: what stays, its knee, and picking from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneepoint.objectives.objective import Scale
from kneepoint.search.axis import Axis
from kneepoint.search.front import Candidate, Front, losses
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.errors import InputError, ObjectiveError
from kneepoint.tasks.metrics import Score

Make = Callable[..., Candidate]
TEACHER = {"accuracy": 0.95, "latency_ms@pi": 9.0, "size_mb": 0.9}


@pytest.fixture
def front(candidate: Make, axes: tuple[Axis, ...]) -> Front:
    """Three compromises, of which the middle one is the knee."""
    members = [candidate(0.9, 9.0, 0.9, "a"), candidate(0.88, 2.0, 0.2, "b"), candidate(0.5, 1.0, 0.1, "c")]
    return Front(members, axes, TEACHER)


def test_it_is_sorted_by_the_first_objective_and_leaves_out_what_is_dominated(
    candidate: Make, axes: tuple[Axis, ...]
) -> None:
    members = [candidate(0.5, 1.0, name="a"), candidate(0.9, 2.0, name="b"), candidate(0.4, 1.5, name="c")]
    assert [one.values["accuracy"] for one in Front(members, axes, TEACHER)] == [0.9, 0.5]


def test_of_equal_candidates_the_first_stays(candidate: Make, axes: tuple[Axis, ...]) -> None:
    first, second = candidate(0.9, name="a"), candidate(0.9, name="b")
    assert list(Front([first, second], axes, TEACHER)) == [first]
    assert list(Front([second, first], axes, TEACHER)) == [second]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_scores_never_reach_it(candidate: Make, axes: tuple[Axis, ...], bad: float) -> None:
    good = candidate(0.9, name="a")
    rest = [candidate(bad, name="b"), candidate(0.95, bad, name="c"), candidate(0.95, size=bad, name="d")]
    assert list(Front([*rest, good], axes, TEACHER)) == [good]


def test_the_knee_is_the_balanced_compromise(front: Front, candidate: Make) -> None:
    assert front.knee().id == candidate(0, name="b").id
    assert front.pick() == front.knee()


def test_a_second_device_does_not_outvote_accuracy(candidate: Make, axes: tuple[Axis, ...]) -> None:
    def priced(one: Candidate) -> Candidate:
        latency = one.scores["latency_ms@pi"]
        scores = {**one.scores, **{f"latency_ms@d{index}": latency for index in range(5)}}
        return Candidate(one.id, one.policy, scores, "ptq")

    more = [Axis(f"latency_ms@d{index}", "minimize", "ms", Scale(10.0, 0.0)) for index in range(5)]
    members = [candidate(0.9, 6.0, 0.6, "a"), candidate(0.5, 1.0, 0.1, "b"), candidate(0.8, 3.0, 0.3, "c")]
    few = Front(members, axes, TEACHER).knee().id
    assert Front([priced(one) for one in members], [*axes, *more], TEACHER).knee().id == few


def test_a_metric_that_is_an_error_weighs_as_much_as_all_costs(candidate: Make) -> None:
    axes = [Axis("accuracy", "minimize", "", Scale(1.0, 0.0)), Axis("size_mb", "minimize", "MB", Scale(1.0, 0.0))]
    front = Front([candidate(0.1, size=0.9, name="a"), candidate(0.2, size=0.1, name="b")], axes, TEACHER)
    assert front.pick("most-accurate").values["accuracy"] == 0.1
    assert front.knee().values["accuracy"] in (0.1, 0.2)


def test_costs_are_compared_by_ratio(candidate: Make, axes: tuple[Axis, ...]) -> None:
    # On a linear scale b would be all but free; by ratio it is half-way, and c is worth its accuracy.
    members = [candidate(0.9, 100.0, 1.0, "a"), candidate(0.8, 10.0, 0.1, "b"), candidate(0.78, 1.0, 0.01, "c")]
    front = Front([*members, candidate(0.7, 0.9, 0.009, "d")], axes, TEACHER)
    assert front.knee().id == candidate(0, name="c").id


def test_picks_by_name(front: Front) -> None:
    assert front.pick("most-accurate").values["accuracy"] == 0.9
    assert front.pick("fastest").values["latency_ms@pi"] == 1.0
    assert front.pick("smallest").values["size_mb"] == 0.1


def test_picks_by_id_and_its_first_digits(front: Front) -> None:
    for member in front:
        assert front.pick(member.id) == member
        assert front.pick(member.id[:6]) == member


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("ffffffff", "names no candidate"),
        ("fastst", "did you mean 'fastest'"),
        ("", "is shorter than 4 digits"),
    ],
)
def test_unknown_picks_are_refused(front: Front, which: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        front.pick(which)


def test_a_pick_with_a_condition(front: Front) -> None:
    assert front.pick("most-accurate", "latency_ms@pi <= 3").values["accuracy"] == 0.88
    assert front.pick("smallest", "accuracy_drop <= 0.1 and size_mb < 0.5 * teacher").values["size_mb"] == 0.2


def test_a_condition_nobody_meets_names_the_nearest(front: Front, candidate: Make) -> None:
    nearest = candidate(0, name="a").id
    with pytest.raises(InputError, match=rf"meets 'accuracy >= 0.99'; nearest: {nearest} \(accuracy = 0.9\)"):
        front.pick("knee", "accuracy >= 0.99")
    with pytest.raises(ObjectiveError, match="did you mean 'accuracy'"):
        front.where("acuracy > 0.5")


@pytest.mark.parametrize("which", ["knee", "fastest", "most-accurate", "smallest"])
def test_an_empty_front_says_so(axes: tuple[Axis, ...], which: str) -> None:
    empty = Front([], axes, TEACHER)
    assert empty.hypervolume == 0.0
    with pytest.raises(InputError, match="the front is empty"):
        empty.pick(which)


def test_a_pick_without_its_objective_is_refused(candidate: Make, axes: tuple[Axis, ...]) -> None:
    with pytest.raises(InputError, match="--pick fastest needs an objective for it; the run has accuracy, size_mb"):
        Front([candidate(0.9)], [axes[0], axes[2]], TEACHER).pick("fastest")


def test_the_table_has_a_row_a_candidate(front: Front, axes: tuple[Axis, ...]) -> None:
    frame = front.to_frame()
    assert list(frame["accuracy"]) == [0.9, 0.88, 0.5]
    assert list(frame.columns[:3]) == ["id", "fidelity", "student"]
    assert set(frame["student"]) == {"teacher"}
    assert list(Front([], axes, TEACHER).to_frame().columns) == list(frame.columns)


def test_a_device_has_its_own_front(candidate: Make, axes: tuple[Axis, ...]) -> None:
    other = Axis("latency_ms@jetson", "minimize", "ms", Scale(10.0, 0.0))

    def on_two(one: Candidate, latency: float) -> Candidate:
        return Candidate(one.id, one.policy, {**one.scores, other.name: Score(latency)}, "ptq")

    members = [on_two(candidate(0.9, 1.0, name="a"), 8.0), on_two(candidate(0.9, 2.0, name="b"), 1.0)]
    front = Front(members, [*axes, other], TEACHER)
    assert len(front) == 2
    assert [one.values["latency_ms@pi"] for one in front.for_device("pi")] == [1.0]
    assert [one.values["latency_ms@pi"] for one in front.for_device("jetson")] == [2.0]
    assert "Front of 2" in repr(front)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10), st.floats(0, 1)), max_size=10))
def test_the_front_of_a_front_and_one_more_is_the_front_of_all(values: list[tuple[float, float, float]]) -> None:
    axes = (
        Axis("accuracy", "maximize", "", Scale(0.0, 1.0)),
        Axis("latency", "minimize", "", Scale(10.0, 0.0)),
        Axis("size", "minimize", "", Scale(1.0, 0.0)),
    )
    candidates = []
    for index, row in enumerate(values):
        policy = Policy.build("teacher", {}, {f"layer{index}": LayerPolicy.of_bits(8)})
        scores = {axis.name: Score(value) for axis, value in zip(axes, row, strict=True)}
        candidates.append(Candidate(policy.id, policy, scores, "ptq"))
    grown = Front([], axes, {})
    for one in candidates:
        grown = Front([*grown, one], axes, {})
    whole = Front(candidates, axes, {})
    assert list(grown) == list(whole)
    assert (losses(grown, axes) == losses(whole, axes)).all()


def test_within_noise_what_cannot_be_told_apart_stays(candidate: Make, axes: tuple[Axis, ...]) -> None:
    """Accuracies have a standard error of 0.01; sizes are exact."""
    best, tied, larger = (
        candidate(0.9, name="a"),
        candidate(0.89, name="b"),
        candidate(0.89, 5.0, 0.6, name="c"),
    )
    front = Front([best, tied, larger], axes, TEACHER, within_noise=True)
    assert list(front) == [best, tied]
    assert list(Front([best, tied, larger], axes, TEACHER)) == [best]
    assert front.hypervolume == Front([best], axes, TEACHER).hypervolume
    assert list(front.for_device("pi")) == [best, tied]
    assert list(front.where("accuracy >= 0.5")) == [best, tied]


def test_alike_names_the_members_that_no_uncertain_objective_tells_apart(
    candidate: Make, axes: tuple[Axis, ...]
) -> None:
    near, nearer, far = candidate(0.9, name="a"), candidate(0.89, 5.0, 0.1, "b"), candidate(0.5, 1.0, 0.05, "c")
    assert Front([near, nearer, far], axes, TEACHER).alike() == {near.id: [nearer.id], nearer.id: [near.id]}
    assert Front([], axes, TEACHER).alike() == {}


def test_who_does_not_fit_every_device_may_be_on_the_front_of_one(candidate: Make, axes: tuple[Axis, ...]) -> None:
    scale = Scale(worst=10.0, ideal=0.0)
    both = (axes[0], axes[1], Axis("latency_ms@mcu", "minimize", "ms", scale))

    def made(accuracy: float, name: str, *misfits: str) -> Candidate:
        one = candidate(accuracy, name=name, misfits=frozenset(misfits))
        return replace(one, scores={**one.scores, "latency_ms@mcu": Score(5.0)})

    small, large = made(0.8, "small"), made(0.9, "large", "mcu")
    nowhere, worse = made(0.95, "nowhere", "mcu", "pi"), made(0.7, "worse", "mcu")
    front = Front([small, large, nowhere, worse], both, {})
    assert list(front) == [small]
    assert front.everyone == [small, large]
    assert list(front.for_device("mcu")) == [small]
    assert list(front.for_device("pi")) == [large]
    assert list(front.for_device("pi").where("accuracy >= 0.85")) == [large]
    again = Front(front.everyone, both, {})
    assert (list(again), again.elsewhere) == (list(front), front.elsewhere)
