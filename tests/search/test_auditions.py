from __future__ import annotations

import json
from pathlib import Path

import pytest

import kneepoint as kp
from kneepoint.objectives.objective import objective
from kneepoint.search.auditions import Entrant, promising
from kneepoint.search.record import SLICE_FIDELITIES
from kneepoint.spaces.students import StudentFamily
from kneepoint.tasks.metrics import Metric, Score, accuracy, as_metric
from tests.search import tiny_problem


def entrant(name: str, quality: float, *costs: float, error: float | None = 0.01) -> Entrant:
    return Entrant(name, Score(quality, error), {f"cost {place}": cost for place, cost in enumerate(costs)})


TEACHER = entrant("teacher", 0.95, 10.0, 10.0)


def left(*entrants: Entrant, metric: Metric = as_metric(accuracy)) -> str:  # noqa: B008 - a constant
    return "".join(one.id for one in promising(entrants, TEACHER, metric))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (entrant("b", 0.80, 4.0, 4.0), "b"),  # cheaper and better
        (entrant("b", 0.80, 5.0, 5.0), "b"),  # as cheap and better
        (entrant("b", 0.80, 4.0, 6.0), "ab"),  # not everywhere
        (entrant("b", 0.72, 4.0, 4.0), "ab"),  # better by no more than noise
        (entrant("b", 0.60, 4.0, 4.0), "ab"),
        (entrant("b", 0.71, 4.0, 4.0, error=None), "ab"),
    ],
)
def test_a_student_stops_where_another_leaves_it_no_chance(other: Entrant, expected: str) -> None:
    assert left(entrant("a", 0.70, 5.0, 5.0), other) == expected


def test_one_that_costs_more_than_the_teacher_stops() -> None:
    assert left(entrant("a", 0.70, 11.0, 12.0), entrant("b", 0.70, 11.0, 2.0)) == "b"


def test_where_less_is_better_less_is_better() -> None:
    error = Metric(lambda outputs, targets: 0.0, "error", "minimize")
    teacher = entrant("t", 0.05, 10.0)
    found = promising([entrant("a", 0.3, 5.0), entrant("b", 0.2, 4.0)], teacher, error)
    assert [one.id for one in found] == ["b"]


def test_equal_ones_all_go_on() -> None:
    assert left(entrant("a", 0.7, 5.0), entrant("b", 0.7, 5.0)) == "ab"


def test_a_search_tries_its_students_in_slices_and_searches_among_those_that_are_left(tmp_path: Path) -> None:
    family = StudentFamily(tiny_problem.build_student, {"width": [2, 3, 4, 6, 12]}, name="tiny_problem:build_student")
    job = tiny_problem.job(tiny_problem.space(students=family), trials=16)
    result = tiny_problem.run(job, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "trials.jsonl").read_text().splitlines()]
    tried = {name: [one for one in records if one["fidelity"] == name] for name in SLICE_FIDELITIES}
    assert len(tried["slice1"]) == 5 >= len(tried["slice2"]) > 0
    assert all(set(one["scores"]) > {"accuracy"} for one in tried["slice1"])
    names = {one["policy"]["student"]["width"] for one in tried["slice1"]}
    assert names == {2, 3, 4, 6, 12}
    searched = {str(one["policy"]["student"]) for one in records if one["parameters"]}
    assert str({"width": 12}) not in searched  # it costs more than the teacher
    assert len(result.front)
    again = tiny_problem.run(job, tmp_path / "run")
    assert (tmp_path / "run" / "trials.jsonl").read_text().count("\n") == len(records)
    assert [one.id for one in again.front] == [one.id for one in result.front]


def test_where_something_is_measured_all_students_enter(tmp_path: Path) -> None:
    family = StudentFamily(tiny_problem.build_student, {"width": [2, 3, 4]}, name="tiny_problem:build_student")
    fragile = objective(lambda view: 1.0, name="fragile", direction="minimize")
    job = tiny_problem.job(
        tiny_problem.space(students=family), trials=8, objectives=[kp.Accuracy(), kp.Size(), fragile]
    )
    tiny_problem.run(job, tmp_path / "run")
    assert "slice1" not in (tmp_path / "run" / "trials.jsonl").read_text()
