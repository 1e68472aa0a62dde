"""Races: who is a rival, when one is lost, and what may be raced at all."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from kneepoint.objectives import Accuracy, Loss, Size
from kneepoint.objectives.objective import Objective
from kneepoint.search.racing import FEWEST, Heat, Race, raced_metric
from kneepoint.tasks.metrics import Metric, Score, accuracy, cross_entropy

RIVALS = [
    {"accuracy": 0.9, "latency": 5.0, "size": 1.0},
    {"accuracy": 0.7, "latency": 2.0, "size": 1.0},
]
RACE = Race(accuracy, {"latency": "minimize", "size": "minimize"}, 1000, RIVALS)


def answers(right: int, wrong: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of two classes, so many of them right."""
    targets = torch.zeros(right + wrong, dtype=torch.long)
    logits = torch.tensor([[1.0, 0.0]] * right + [[0.0, 1.0]] * wrong)
    return logits, targets


@pytest.mark.parametrize(
    ("latency", "size", "bar"), [(5.0, 1.0, 0.9), (4.9, 1.0, 0.7), (9.0, 2.0, 0.9), (1.9, 1.0, None), (9.0, 0.9, None)]
)
def test_rivals_are_those_that_are_no_dearer(latency: float, size: float, bar: float | None) -> None:
    heat = RACE.heat({"latency": Score(latency), "size": Score(size)})
    assert (heat and heat.bar) == bar


def test_a_maximized_cost_counts_the_other_way() -> None:
    race = Race(accuracy, {"throughput": "maximize"}, 10, [{"accuracy": 0.9, "throughput": 5.0}])
    assert race.heat({"throughput": Score(4.0)}) is not None
    assert race.heat({"throughput": Score(6.0)}) is None


def test_a_race_is_lost_when_the_bound_falls_below_the_bar() -> None:
    heat = Heat(accuracy, bar=0.9, samples=1000)
    assert not heat.is_lost(*answers(60, 6))
    assert heat.is_lost(*answers(20, 40))
    assert heat.stopped_after == 126


def test_a_close_race_goes_on_to_the_end() -> None:
    heat = Heat(accuracy, bar=0.9, samples=400)
    assert [heat.is_lost(*answers(88, 12)) for _ in range(4)] == [False] * 4
    assert heat.stopped_after is None


def test_too_few_samples_decide_nothing() -> None:
    assert not Heat(accuracy, bar=0.9, samples=1000).is_lost(*answers(0, FEWEST - 1))


def test_nothing_right_at_all_is_lost_too() -> None:
    assert Heat(accuracy, bar=0.9, samples=1000).is_lost(*answers(0, FEWEST))


def test_a_minimized_metric_is_lost_above_the_bar() -> None:
    logits, targets = answers(0, 80)
    assert Heat(cross_entropy, bar=0.1, samples=1000).is_lost(logits + 0.01 * torch.arange(80)[:, None], targets)
    assert not Heat(cross_entropy, bar=5.0, samples=1000).is_lost(logits, targets)


def test_candidates_as_good_as_the_bar_are_seldom_stopped() -> None:
    random, lost = np.random.default_rng(0), 0
    for _ in range(200):
        heat = Heat(accuracy, bar=0.9, samples=3200)
        right = random.binomial(64, 0.9, size=50)
        lost += any(heat.is_lost(*answers(int(count), 64 - int(count))) for count in right)
    assert lost <= 10


def test_a_race_travels_to_workers() -> None:
    assert pickle.loads(pickle.dumps(RACE)) == RACE  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("objectives", "raced"),
    [
        ([Accuracy(accuracy), Size()], True),
        ([Accuracy(accuracy), Loss(), Size()], False),
        ([Size()], False),
        ([Accuracy(Metric(lambda outputs, targets: 0.5, "f1")), Size()], False),
    ],
    ids=["one metric", "a loss beside it", "no metric", "not per sample"],
)
def test_only_a_single_per_sample_metric_is_raced(objectives: list[Objective], raced: bool) -> None:
    assert (raced_metric(objectives) is not None) == raced
