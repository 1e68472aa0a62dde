"""The comparison of searches: tables, methods, verdicts, the page."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import search_page
from benchmarks.search_efficiency import POINTS, SLOW, Run, measure, runs
from benchmarks.search_methods import ABLATIONS, OURS, RIVALS
from benchmarks.search_page import Curve, verdicts, write_page
from benchmarks.search_problems import TABULAR, TableProblem
from benchmarks.search_tables import RECIPES, Table
from kneepoint.search.pareto import hypervolume


@pytest.fixture
def table() -> Table:
    """A small one: an error that falls, and a size that grows with the bits."""
    counts = {"bits/a": 6, "bits/b": 6, "keep/c": 4}
    points = np.array(list(itertools.product(*map(range, counts.values()))), np.float64)
    accuracy = 0.9 - 0.02 * ((5 - points[:, 0]) ** 2 + (5 - points[:, 1])) * (4 - points[:, 2]) / 4
    size = (1 + points.sum(axis=1)) / 16
    return Table(
        name="made",
        counts=counts,
        objectives=[("accuracy", "maximize"), ("size_mb", "minimize")],
        values=np.stack([accuracy, size], axis=1),
        scales=[(0.0, 1.0), (1.0, 0.0)],
        saturating=[True, False],
        predicted=[False, True],
        sensitivities={name: [float(count - 1 - at) for at in range(count)] for name, count in counts.items()},
        anchors=[dict(zip(counts, (5, 5, 3), strict=True))],
        seconds={"evaluation": 0.5, "price": 0.01, "sensitivities": 1.0},
    )


def result(volumes: list[float], seconds: float = 0.0, true: float | None = None) -> dict[str, Any]:
    evaluations = [50, 100, 200, 1000][: len(volumes)]
    return {
        "evaluations": evaluations,
        "hypervolume": volumes,
        "seconds": [seconds] * len(volumes),
        "evaluation_seconds": 0.5,
        "true": true,
    }


def test_a_table_comes_back_as_it_was_saved(table: Table, tmp_path: Path) -> None:
    table.save(tmp_path)
    again = Table.load("made", tmp_path)
    assert (again.values == table.values).all()
    assert (again.counts, again.seconds) == (table.counts, table.seconds)


def test_a_setting_is_found_in_its_row(table: Table) -> None:
    for row, choice in enumerate(itertools.product(range(6), range(6), range(4))):
        assert table.find(dict(zip(table.counts, choice, strict=True))) == table.values[row].tolist()


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_tables_hold_every_point(name: str) -> None:
    found = Table.load(name)
    assert len(found.values) == np.prod(list(found.counts.values()))
    assert np.isfinite(found.values).all()
    assert 0 < hypervolume(found.losses) < 1
    assert found.sensitivities.keys() == found.counts.keys()


@pytest.mark.parametrize("method", sorted((RIVALS.keys() | ABLATIONS.keys()) - {SLOW}))
def test_every_method_finds_the_front_of_a_tiny_table(table: Table, method: str) -> None:
    found = measure(Run("table-made", method, 0, 50), TableProblem(table))
    assert found["evaluations"] == [point for point in POINTS if point <= 50]
    assert found["hypervolume"][-1] > 0.6 * found["true"]
    assert found["hypervolume"] == sorted(found["hypervolume"])


def test_sensitivities_and_prices_are_paid_for(table: Table) -> None:
    ours = measure(Run("table-made", OURS, 0, 10), TableProblem(table))
    assert ours["seconds"][0] > 1.0 + 10 * 0.01
    assert measure(Run("table-made", "random", 0, 10), TableProblem(table))["seconds"][0] < 1.0


def test_runs_are_told_apart_and_long_enough() -> None:
    found = [run for name in TABULAR for run in runs(name)]
    assert len({run.key for run in found}) == len(found)
    assert {run.evaluations for run in found if run.method == "nsga2"} == {1000}


def test_seconds_become_evaluation_equivalents() -> None:
    curve = Curve.of([result([0.1, 0.2], seconds=5.0), result([0.1, 0.4], seconds=15.0)])
    assert curve.equivalents.tolist() == [[60.0, 110.0], [80.0, 130.0]]
    assert curve.volume_at(100) == pytest.approx(0.3)
    assert curve.volume_at(77) is None
    assert curve.reaching(0.15) == pytest.approx(120.0)
    assert curve.reaching(0.3) == float("inf")


def test_a_verdict_is_about_the_best_rival() -> None:
    results = {
        "table-plain/kneepoint/0": result([0.5, 0.6, 0.7], true=0.71),
        "table-plain/tpe/0": result([0.1, 0.2, 0.3, 0.55], true=0.71),
        "table-plain/nsga2/0": result([0.1, 0.2, 0.4, 0.5], true=0.71),
    }
    (found,) = verdicts(results)
    assert found.best == ("tpe", 0.55, 1000)
    assert found.equivalents == 100.0
    assert found.clock_share == pytest.approx(0.1)
    assert found.at_short == (0.7, 0.4)
    assert found.short_holds


def test_the_page_says_what_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(search_page, "PICTURE", tmp_path / "page.png")
    results = {
        "table-plain/kneepoint/0": result([0.5, 0.6, 0.7]),
        "table-plain/tpe/0": result([0.1, 0.2, 0.69, 0.8]),
        "table-plain/without anchors/0": result([0.4, 0.6]),
    }
    assert write_page(results) == 1
    page = (tmp_path / "page.md").read_text()
    assert "| table-plain | tpe | 0.8000 | 1000 | never |" in page
    assert "| table-plain | 50 | -20.00% |" in page
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
