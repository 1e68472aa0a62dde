"""The ablation of distillation: its variants can run, and its page says no more than its figures."""

from __future__ import annotations

import pytest

from benchmarks.distillation import OF_RECOVERY, SEEDS, TIMED, changes_of, missing
from benchmarks.distillation_page import Runs, bar, difference
from kneepoint.compression import Distillation


def runs(*points: float) -> Runs:
    return {
        "plain": {seed: {"test": 0.9} for seed in range(len(points))},
        "soft": {seed: {"test": 0.9 + point / 100} for seed, point in enumerate(points)},
    }


@pytest.mark.parametrize("problem", ["digits", "text", "recovery"])
def test_every_variant_is_a_way_to_distil(problem: str) -> None:
    for change in changes_of(problem).values():
        Distillation(**{"steps": 1, "learning_rate": 1e-3, **change})
    assert changes_of("text").keys() > changes_of("digits").keys()
    assert {"plain", "soft"} <= changes_of(problem).keys()


def test_only_what_has_no_figures_is_measured() -> None:
    known = [{"problem": "recovery", "variant": "soft", "seed": 1}]
    wanted = list(missing(["recovery"], known))
    assert len(wanted) == len(OF_RECOVERY) * len(SEEDS) - 1
    assert ("recovery", "soft", 1) not in wanted
    assert [seed for _, variant, seed in missing(["text"], []) if variant == TIMED] == [SEEDS[0]]


def test_a_difference_is_bold_where_chance_does_not_explain_it() -> None:
    assert difference(runs(1.0, 1.1, 1.2), "soft", "plain") == "**+1.10 ± 0.06**"
    assert difference(runs(1.0, -1.1, 0.7), "soft", "plain") == "+0.20 ± 0.66"
    assert difference(runs(0.5), "soft", "plain") == "+0.50"
    assert difference(runs(0.5), "plain", "plain") == difference(runs(0.5), "soft", "other") == ""


@pytest.mark.parametrize(("test", "said"), [(0.93, "within 1.5"), (0.92, "not within 1.5")])
def test_the_bar_is_held_against_both_splits(test: float, said: str) -> None:
    run = {"problem": "recovery", "variant": "soft", "seed": 0, "validation": 0.95, "test": test, "steps": 9}
    results = {"teachers": {"recovery": {"validation": 0.96, "test": 0.94}}, "runs": [run]}
    text = bar(results)
    assert text.startswith("- 9 steps: 1.00 points lost on validation")
    assert f": {said} points" in text
