from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.objectives.expressions import Condition
from kneepoint.tasks.errors import ObjectiveError

NAMES = ["accuracy", "size_mb", "latency_ms@raspberry-pi-4b"]
DIRECTIONS = {
    "accuracy": "maximize",
    "size_mb": "minimize",
    "latency_ms@raspberry-pi-4b": "minimize",
    "loss": "minimize",
}
TEACHER = {"accuracy": 0.9, "size_mb": 4.0, "latency_ms@raspberry-pi-4b": 10.0}
finite = st.floats(-1e9, 1e9, allow_nan=False)


def holds(text: str, **values: float) -> bool:
    given_values = {"latency_ms@raspberry-pi-4b": values.pop("latency", 5.0), **values}
    return Condition.parse(text, NAMES).holds(given_values, TEACHER, DIRECTIONS)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("size_mb <= 2", 2.0, True),
        ("size_mb < 2", 2.0, False),
        ("size_mb >= 2", 2.0, True),
        ("size_mb > 2", 2.0, False),
        ("  size_mb<=2e0  ", 2.0, True),
        ("size_mb <= .5", 0.5, True),
        ("size_mb >= -1.", -1.0, True),
        ("size_mb <= +3", 2.0, True),
        ("size_mb <= 0.25 * teacher", 1.0, True),
        ("size_mb <= 0.25*teacher", 1.1, False),
        ("size_mb < teacher", 4.0, False),
        ("size_mb <= teacher", 4.0, True),
        ("size_mb_drop <= 1", 5.0, True),  # minimized: a drop is an increase
        ("size_mb_drop <= 1", 5.5, False),
        ("size_mb_drop <= 0", 3.0, True),
        ("size_mb_drop <= 0.25 * teacher", 5.0, True),
    ],
)
def test_one_comparison(text: str, value: float, expected: bool) -> None:
    assert holds(text, size_mb=value) is expected


def test_a_drop_is_how_much_worse_than_the_teacher() -> None:
    assert holds("accuracy_drop <= 0.05", accuracy=0.86)
    assert not holds("accuracy_drop <= 0.05", accuracy=0.84)
    assert holds("accuracy_drop <= 0", accuracy=0.95)


def test_conditions_are_joined_by_and() -> None:
    text = "latency_ms@raspberry-pi-4b <= 3 and size_mb <= 1"
    assert holds(text, latency=3.0, size_mb=1.0)
    assert not holds(text, latency=3.1, size_mb=1.0)
    assert not holds(text, latency=3.0, size_mb=1.1)
    assert Condition.parse(text, NAMES).objectives == ["latency_ms@raspberry-pi-4b", "size_mb"]
    both = Condition.of(["size_mb <= 1", text], NAMES)
    assert len(both.comparisons) == 3
    assert both.objectives == ["size_mb", "latency_ms@raspberry-pi-4b"]


def test_a_name_may_hold_the_word_and() -> None:
    parsed = Condition.parse("latency_ms@land-and-sea <= 3 and size_mb <= 1")
    assert parsed.objectives == ["latency_ms@land-and-sea", "size_mb"]


def test_an_objective_that_is_called_a_drop_is_read_itself() -> None:
    parsed = Condition.parse("voltage_drop <= 1", ["voltage_drop"])
    assert (parsed.comparisons[0].objective, parsed.comparisons[0].drop) == ("voltage_drop", False)


def test_no_condition_always_holds() -> None:
    assert Condition.of([]).holds({}, {}, {})
    assert Condition.of([]).violations({}, {}, {}) == []


@given(finite, finite, st.sampled_from(["<=", "<", ">=", ">"]))
def test_a_violation_is_above_zero_exactly_where_a_comparison_fails(value: float, bound: float, sign: str) -> None:
    condition = Condition.parse(f"size_mb {sign} {bound!r}")
    (violation,) = condition.violations({"size_mb": value}, {}, DIRECTIONS)
    assert (violation == 0) == condition.holds({"size_mb": value}, {}, DIRECTIONS)
    assert violation >= 0
    if violation:
        assert violation == pytest.approx(abs(value - bound), abs=1e-300)


@given(st.sampled_from(["maximize", "minimize"]), finite, finite)
def test_drops_mirror_each_other(direction: str, value: float, teacher: float) -> None:
    held = Condition.parse("x_drop <= 0").holds({"x": value}, {"x": teacher}, {"x": direction})
    assert held == (value >= teacher if direction == "maximize" else value <= teacher)


def test_no_number_misses_every_bound() -> None:
    condition = Condition.parse("size_mb <= 1 and size_mb >= 0")
    assert condition.violations({"size_mb": math.nan}, {}, {}) == [math.inf, math.inf]
    assert not condition.holds({"size_mb": math.nan}, {}, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "size_mb",
        "size_mb = 2",
        "size_mb == 2",
        "size_mb <= ",
        "size_mb <= two",
        "size_mb <= 2 MB",
        "2 >= size_mb",
        "size_mb <= 2 and",
        "size_mb <= 2 or accuracy > 0.5",
        "size_mb <= 2 * accuracy",
        "size_mb <= teacher * 2",
        "size_mb <= nan",
        "0 < size_mb < 2",
        "__import__('os')",
    ],
)
def test_what_is_no_condition_is_shown_one(text: str) -> None:
    with pytest.raises(ObjectiveError, match=r"a condition reads like 'accuracy_drop <= 0.05'"):
        Condition.parse(text, NAMES)


def test_a_bound_is_finite() -> None:
    with pytest.raises(ObjectiveError, match="a bound is a finite number; got 1e999 in 'size_mb <= 1e999'"):
        Condition.parse("size_mb <= 1e999", NAMES)


def test_unknown_objectives_are_named_with_the_nearest() -> None:
    with pytest.raises(
        ObjectiveError, match="unknown objective 'acuracy' in 'acuracy_drop <= 1'; did you mean 'accuracy'"
    ):
        Condition.parse("acuracy_drop <= 1", NAMES)


def test_values_that_are_missing_are_named() -> None:
    condition = Condition.parse("accuracy_drop <= 0.1 and size_mb <= teacher")
    with pytest.raises(ObjectiveError, match=r"'accuracy_drop <= 0\.1' needs the candidate's 'accuracy'"):
        condition.holds({}, TEACHER, DIRECTIONS)
    with pytest.raises(ObjectiveError, match="needs the teacher's 'size_mb'"):
        condition.holds({"accuracy": 0.9, "size_mb": 1}, {"accuracy": 0.9}, DIRECTIONS)
