from __future__ import annotations

import math

import pytest
import torch

from kneepoint.compression.loss_weights import TEMPERATURE, WINDOW, DynamicWeights


def run(weights: DynamicWeights, batches: int, **terms: float) -> dict[str, float]:
    found: dict[str, torch.Tensor] = {}
    for _ in range(batches):
        found = weights({name: torch.tensor(value) for name, value in terms.items()})
    return {name: float(value) for name, value in found.items()}


def test_the_weights_are_those_of_the_paper() -> None:
    weights = DynamicWeights(["a", "b"])
    assert run(weights, WINDOW, a=4.0, b=1.0) == {"a": 1.0, "b": 1.0}
    assert run(weights, WINDOW, a=1.0, b=0.8) == {"a": 1.0, "b": 1.0}
    found = run(weights, 1, a=1.0, b=1.0)
    slow, fast = math.exp(0.8 / TEMPERATURE), math.exp(0.25 / TEMPERATURE)
    assert found["b"] == pytest.approx(2 * slow / (slow + fast))
    assert sum(found.values()) == pytest.approx(2)


def test_a_term_that_comes_later_weighs_one_at_first() -> None:
    weights = DynamicWeights(["a", "b"])
    run(weights, 3 * WINDOW, a=1.0)
    assert run(weights, 1, a=1.0, b=5.0) == {"a": 1.0, "b": 1.0}


def test_a_term_that_reached_nothing_makes_no_nan() -> None:
    weights = DynamicWeights(["a", "b"])
    found = run(weights, 2 * WINDOW + 1, a=0.0, b=1.0)
    assert found == {"a": 1.0, "b": 1.0}
