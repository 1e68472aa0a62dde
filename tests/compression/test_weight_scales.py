from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kneepoint.compression.quantizers import dequantized_weight
from kneepoint.compression.weight_scales import WEIGHT_SCALE_METHODS, WeightScaleMethod, weight_scales
from kneepoint.spaces.quant_plan import WeightQuant
from kneepoint.tasks.errors import SpaceError


def error(rows: torch.Tensor, scale: torch.Tensor, bits: int, importance: torch.Tensor | float = 1.0) -> torch.Tensor:
    return ((dequantized_weight(rows, WeightQuant(bits, scale)) - rows).square() * importance).sum(1)


@given(seed=st.integers(0, 10**6), spread=st.floats(1e-5, 1e5), bits=st.sampled_from([2, 3, 4, 6, 8]))
@settings(max_examples=25, deadline=None)
def test_the_least_error_is_no_larger_than_that_of_the_whole_range(seed: int, spread: float, bits: int) -> None:
    rows = torch.randn(6, 50, generator=torch.Generator().manual_seed(seed)) * spread
    rows[0] = 0
    least, whole = weight_scales(rows, bits, "mse"), weight_scales(rows, bits, "minmax")
    assert (least > 0).all()
    assert (error(rows, least, bits) <= error(rows, whole, bits) * 1.001 + 1e-20).all()
    torch.testing.assert_close(whole[1:] * WeightQuant(bits).limit, rows[1:].abs().amax(1))


def test_weights_that_matter_more_are_rounded_better() -> None:
    torch.manual_seed(0)
    rows, importance = torch.randn(8, 200), torch.rand(8, 200).pow(8)
    weighted, plain = weight_scales(rows, 3, "mse", importance=importance), weight_scales(rows, 3, "mse")
    assert error(rows, weighted, 3, importance).sum() < error(rows, plain, 3, importance).sum()
    shared = weight_scales(rows, 3, "mse", importance=importance[:1])
    assert torch.equal(shared[0], weighted[0])


def test_outliers_beyond_the_percentile_saturate() -> None:
    rows = torch.cat([torch.linspace(-1, 1, 2001), torch.tensor([50.0])]).unsqueeze(0)
    assert float(weight_scales(rows, 8, "percentile") * 127) == pytest.approx(1.0, abs=0.01)
    assert float(weight_scales(rows, 8, "minmax") * 127) == pytest.approx(50.0)


@pytest.mark.parametrize("method", WEIGHT_SCALE_METHODS)
def test_one_bit_is_the_mean_magnitude(method: WeightScaleMethod) -> None:
    rows = torch.tensor([[1.0, -3.0, 2.0, 0.0]])
    assert weight_scales(rows, 1, method).tolist() == [1.5]
    assert weight_scales(rows, 1, method, group_size=2).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("method", WEIGHT_SCALE_METHODS)
def test_groups_are_scaled_each_for_itself_and_the_last_may_be_shorter(method: WeightScaleMethod) -> None:
    torch.manual_seed(0)
    rows, importance = torch.randn(5, 70), torch.rand(1, 70)
    scales = weight_scales(rows, 4, method, 32, importance)
    assert scales.shape == (5, 3)
    for group, part in enumerate(rows.split(32, dim=1)):
        own = weight_scales(part, 4, method, part.shape[1], importance.split(32, dim=1)[group]).squeeze(1)
        assert torch.equal(scales[:, group], own)


def test_large_layers_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(9, 40)
    whole = weight_scales(rows, 4, "mse")
    monkeypatch.setattr("kneepoint.compression.weight_scales._CHUNK", 40 * 33 * 2)
    assert torch.equal(weight_scales(rows, 4, "mse"), whole)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SpaceError, match="did you mean 'minmax'"):
        weight_scales(torch.ones(2, 2), 4, "minmaks")  # type: ignore[arg-type]  # what is not checked comes from files


def test_the_scale_of_a_group_turns_its_longer_side_to_the_lowest_integer() -> None:
    rows = torch.tensor([[-4.0, 3.0, 0.0, 1.0], [4.0, -3.0, 0.0, -1.0]])
    for method in ("mse", "minmax"):
        scales = weight_scales(rows, 3, method, group_size=4)
        assert scales.sign().tolist() == [[1.0], [-1.0]]
    assert scales.tolist() == [[1.0], [-1.0]]


def test_groups_of_two_bits_hold_four_values() -> None:
    torch.manual_seed(0)
    rows = torch.randn(50, 32)
    grouped, whole = weight_scales(rows, 2, "mse", group_size=32), weight_scales(rows, 2, "mse")
    four = (dequantized_weight(rows, WeightQuant(2, grouped, group_size=32)) - rows).square().mean()
    three = (dequantized_weight(rows, WeightQuant(2, whole)) - rows).square().mean()
    assert four < 0.85 * three
