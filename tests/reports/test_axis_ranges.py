from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kneepoint.reports import RunView
from kneepoint.reports.axis_ranges import cost_range, is_logarithmic, out_of_sight, quality_range

WriteRun = Callable[..., Path]


def test_hopeless_trials_do_not_squash_the_front(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    ends = quality_range(view)
    assert ends is not None
    values = [one.scores["accuracy"].value for one in view.members()]
    assert ends[0] < min(values)
    assert ends[1] > 0.978
    assert ends[1] - ends[0] < 2 * (0.98 - min(values))
    assert out_of_sight(view) > 10


def test_an_outlier_of_the_front_does_not_squash_the_rest(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        worst = content["fronts"]["all"][-1]
        next(one for one in content["candidates"] if one["id"] == worst)["scores"]["accuracy"]["value"] = 0.3

    ends = quality_range(RunView.read(make_run(front=front)))
    assert ends is not None
    assert ends[0] > 0.8


def test_a_quality_that_is_minimized_turns_the_range_round(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        content["objectives"][0] = {"name": "perplexity", "direction": "minimize", "unit": ""}
        content["reference"]["perplexity"] = {"worst": 100.0, "ideal": 0.0}
        for candidate in content["candidates"]:
            score = candidate["scores"].pop("accuracy")
            candidate["scores"]["perplexity"] = {"value": 10 / score["value"], "error": 0.1}

    view = RunView.read(make_run(front=front))
    ends = quality_range(view)
    assert ends is not None
    assert ends[0] < 10 / 0.978 < max(one.scores["perplexity"].value for one in view.members()) < ends[1] < 12


def test_nothing_to_show(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        content.update(fronts={"all": []}, knee=None, candidates=[], baselines={})

    view = RunView.read(make_run(front=front))
    assert quality_range(view) is None
    assert out_of_sight(view) == 0


def test_costs_far_apart_are_logarithmic() -> None:
    assert is_logarithmic([0.1, 1.0])
    assert not is_logarithmic([0.5, 1.0])
    assert not is_logarithmic([0.0, 1.0])
    assert not is_logarithmic([])


def test_cost_ranges_hold_every_value() -> None:
    assert cost_range([], log=False) is None
    assert cost_range([1.0, 11.0], log=False) == pytest.approx([0.4, 11.6])
    assert cost_range([0.1, 10.0], log=True) == pytest.approx([-1.12, 1.12])
    assert cost_range([4.0], log=False) == pytest.approx([2.0, 6.0])
    assert cost_range([0.0], log=False) == pytest.approx([-1.0, 1.0])
