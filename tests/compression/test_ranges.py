from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression.quantizers import fake_quantize_activation
from kneepoint.compression.ranges import BINS, RANGE_METHODS, Histogram, Observed, RangeMethod, observe
from kneepoint.spaces.network import Network
from kneepoint.tasks.errors import JobFailed, SpaceError


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)

    def forward(self, x: Tensor, shift: Tensor) -> Any:
        return self.second(F.relu(self.first(x) + shift))


def seen(*batches: Tensor) -> Observed:
    found = [Observed(float(x.min()), float(x.max()), histogram(x)) for x in batches]
    return found[0] if len(found) == 1 else found[0].joined(found[1])


def histogram(x: Tensor) -> Histogram:
    return Histogram.of(x, float(x.min()), float(x.max()))


def test_extremes_are_those_of_all_batches_and_inputs_are_matched_by_name() -> None:
    torch.manual_seed(0)
    module = Small().eval()
    batches = [{"shift": torch.randn(5, 4), "x": torch.randn(5, 3)} for _ in range(3)]
    network = Network(module, {"x": torch.randn(1, 3), "shift": torch.randn(1, 4)})
    found = observe(network.graph_module, ["x", "relu"], batches)
    every = torch.cat([batch["x"] for batch in batches])
    assert (found["x"].low, found["x"].high) == (float(every.min()), float(every.max()))
    assert found["x"].histogram is None
    assert found["relu"].quant().zero_point == 0
    counted = observe(network.graph_module, ["relu"], batches, histograms=True)["relu"].histogram
    assert counted is not None
    assert counted.counts.sum() == 3 * 5 * 4


@given(
    seed=st.integers(0, 10**6),
    spreads=st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)),
    shift=st.floats(-100, 100),
)
@settings(max_examples=40, deadline=None)
def test_histograms_join_without_losing_a_value(seed: int, spreads: tuple[float, float], shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(500, generator=generator) * spread + shift for spread in spreads)
    joined = histogram(first).joined(histogram(second))
    assert len(joined.counts) <= BINS
    assert joined.counts.sum() == 1000
    width = 2.0**joined.exponent
    every = torch.cat([first, second]).double()
    mean = float((joined.centers * joined.counts).sum() / 1000)
    assert mean == pytest.approx(float(every.mean()), abs=width)
    assert joined.first * width <= every.min()
    assert (joined.first + len(joined.counts)) * width >= every.max()


def test_a_constant_is_counted_too() -> None:
    for value in (0.0, 5.0, -3.0):
        known = seen(torch.full((10,), value))
        assert known.histogram is not None
        assert known.histogram.counts.sum() == 10
        low, high = known.range("percentile", 8)
        assert low <= value <= high


def test_outliers_saturate_by_percentile_and_by_error() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(100_000), torch.tensor([-60.0, 80.0])])
    known = seen(x[:50_000], x[50_000:])
    assert known.range("minmax", 8) == (-60.0, 80.0)
    for method in ("percentile", "mse"):
        low, high = known.range(method, 8)
        assert -50 < low < -2
        assert 2 < high < 70

    def error(method: RangeMethod) -> float:
        quant = known.quant(method)
        assert quant.scale is not None
        return float((fake_quantize_activation(x, quant.scale, quant.zero_point, quant.limit) - x).square().sum())

    assert error("mse") < error("minmax")
    assert error("mse") <= error("percentile") * 1.001


@given(seed=st.integers(0, 10**6), method=st.sampled_from(RANGE_METHODS), sign=st.sampled_from([-1, 1]))
@settings(max_examples=20, deadline=None)
def test_ranges_hold_zero_and_stay_within_the_values(seed: int, method: RangeMethod, sign: int) -> None:
    x = torch.randn(2000, generator=torch.Generator().manual_seed(seed)).abs() * sign
    low, high = seen(x).range(method, 8)
    assert low <= 0 <= high
    assert min(0.0, float(x.min())) <= low
    assert high <= max(0.0, float(x.max()))
    assert low < high
    quant = seen(x).quant(method, 16)
    assert quant.bits == 16


def test_values_that_are_not_finite_are_refused_by_name() -> None:
    network = Network(Small().eval(), (torch.randn(1, 3), torch.randn(1, 4)))
    for bad in (torch.inf, torch.nan):
        inputs = [(torch.randn(2, 3), torch.full((2, 4), bad))]
        with pytest.raises(JobFailed, match="value 'relu' reaches"):
            observe(network.graph_module, ["relu"], inputs)


def test_unknown_methods_and_missing_histograms_are_refused() -> None:
    with pytest.raises(SpaceError, match="did you mean 'minmax'"):
        Observed(0.0, 1.0).quant("minmx")  # type: ignore[arg-type]  # what is not checked comes from files
    with pytest.raises(ValueError, match="observe with histograms=True"):
        Observed(0.0, 1.0).quant("mse")
