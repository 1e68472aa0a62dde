from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kneepoint.tasks.standard_errors import bootstrap, jackknife, of_mean, of_sums

Method = Callable[[Callable[[Any, Any], Any], Any, Any], float | None]


def mean(outputs: Tensor, targets: Tensor) -> float:
    return float(outputs.mean())


@pytest.mark.parametrize("method", [jackknife, bootstrap])
def test_resampling_finds_the_error_of_a_mean(method: Method) -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = method(mean, values, values)
    assert found == pytest.approx(of_mean(values), rel=0.35)
    assert found == method(mean, values, values)


def test_the_jackknife_of_single_samples_is_exact_for_a_mean() -> None:
    values = torch.randn(15, dtype=torch.float64)
    assert jackknife(mean, values, values) == pytest.approx(of_mean(values))


@pytest.mark.parametrize("method", [jackknife, bootstrap])
def test_structures_are_resampled_with_their_targets(method: Method) -> None:
    def difference(outputs: dict[str, Tensor], targets: tuple[Tensor]) -> float:
        return float((outputs["a"] - targets[0]).abs().max())

    values = torch.randn(30)
    assert method(difference, {"a": values}, (values,)) == 0.0


@pytest.mark.parametrize("method", [jackknife, bootstrap])
def test_unknown_errors_are_none(method: Method) -> None:
    one = torch.zeros(1)
    assert method(mean, one, one) is None
    nothing = torch.full((4,), float("nan"))
    assert method(mean, nothing, nothing) is None


def test_the_delta_method_is_exact_for_a_mean() -> None:
    values = torch.randn(40, dtype=torch.float64)
    sums = torch.stack([values, torch.ones(40, dtype=torch.float64)], dim=1)
    value, error = of_sums(sums, lambda total: total[0] / total[1])
    assert value == pytest.approx(float(values.mean()))
    assert error == pytest.approx(of_mean(values))


def test_the_delta_method_works_on_what_inference_mode_made() -> None:
    with torch.inference_mode():
        sums = torch.rand(10, 2, dtype=torch.float64)
        _, error = of_sums(sums, lambda total: total[0] / total[1])
    assert error is not None
