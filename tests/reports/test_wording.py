import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.reports.run_view import ObjectiveEntry, ScoreEntry
from kneepoint.reports.wording import (
    column_decimals,
    counted,
    decimals,
    difference_text,
    gain_text,
    joined,
    objective_label,
    printable,
    ratio_text,
    score_text,
)

LATENCY = ObjectiveEntry(name="latency_ms@pi", direction="minimize", unit="ms")
SIZE = ObjectiveEntry(name="size_mb", direction="minimize", unit="MB")
ENERGY = ObjectiveEntry(name="energy_mj@pi", direction="minimize", unit="mJ")
ACCURACY = ObjectiveEntry(name="accuracy", direction="maximize", unit="")


@given(st.text())
def test_printable_leaves_nothing_for_a_terminal_to_obey(text: str) -> None:
    assert printable(text).isprintable()


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"])))
def test_printable_keeps_plain_text(text: str) -> None:
    assert printable(text) == text


def test_printable_spells_out_escapes() -> None:
    assert printable("a\x1b[31mb\n\u202e") == "a\\x1b[31mb\\n\\u202e"


@pytest.mark.parametrize(
    ("values", "places"),
    [([0.9612, 0.9], 4), ([12.4, 3.1], 2), ([12.4, 0.031], 3), ([12345.0], 0), ([0.0], 0), ([], 0)],
)
def test_decimals_show_the_largest_and_the_smallest(values: list[float], places: int) -> None:
    assert decimals(values) == places


def test_decimals_end_where_the_standard_error_does() -> None:
    assert column_decimals([ScoreEntry(value=0.2655, error=0.02), ScoreEntry(value=0.86)]) == 3
    assert column_decimals([ScoreEntry(value=0.2655, error=None), ScoreEntry(value=0.86, error=0.0)]) == 4


def test_scores_with_and_without_an_error() -> None:
    assert score_text(ScoreEntry(value=0.95412, error=0.00698)) == "0.9541 ±0.0070"
    assert score_text(ScoreEntry(value=1.5)) == "1.500"
    assert score_text(ScoreEntry(value=-2.0, error=0.5), places=1) == "-2.0 ±0.5"


@pytest.mark.parametrize(
    ("objective", "teacher", "value", "text"),
    [
        (LATENCY, 12.0, 3.0, "4.0x faster on pi"),
        (LATENCY, 3.0, 12.0, "4.0x slower on pi"),
        (SIZE, 2.0, 0.5, "4.0x smaller"),
        (ENERGY, 2.0, 0.5, "4.0x lower in energy_mj@pi"),
        (ENERGY, 2.0, 4.0, "2.0x higher in energy_mj@pi"),
        (SIZE, 0.0, 0.5, ""),
        (ACCURACY, 0.9, 0.8, ""),
    ],
)
def test_costs_against_the_teacher(objective: ObjectiveEntry, teacher: float, value: float, text: str) -> None:
    assert ratio_text(objective, teacher, value) == text


def test_quality_against_the_teacher() -> None:
    assert difference_text(ACCURACY, 0.978, 0.954) == "0.024 lower than the teacher's 0.978"
    assert difference_text(ACCURACY, 0.95, 0.97) == "0.02 higher than the teacher's 0.95"
    assert difference_text(ACCURACY, 0.95, 0.95) == "the teacher's own 0.95"


def test_labels_name_a_unit_once() -> None:
    assert objective_label(LATENCY) == "latency_ms@pi, lower is better"
    assert objective_label(ACCURACY) == "accuracy, higher is better"
    assert objective_label(ObjectiveEntry(name="wer", direction="minimize", unit="%")) == "wer (%), lower is better"


def test_gains_counts_and_enumerations() -> None:
    assert gain_text(0.6, 0.5) == "+20.0%"
    assert gain_text(0.6, 0.0) == ""
    assert counted(1, "policy", "policies") == "1 policy"
    assert counted(2, "policy", "policies") == "2 policies"
    assert [joined(["a", "b", "c"]), joined(["a"]), joined([])] == ["a, b and c", "a", ""]
