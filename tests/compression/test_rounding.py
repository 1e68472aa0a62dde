from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kneepoint.compression.bias_correction import bias_correction
from kneepoint.compression.quantizers import dequantized_weight, weight_rows
from kneepoint.compression.rounding import learned_rounding, refitted
from kneepoint.compression.statistics import InputStatistics
from kneepoint.compression.weight_scales import weight_scales
from kneepoint.spaces.quant_plan import WeightQuant

all_bits = pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])


def statistics_of(x: Tensor, groups: int = 1) -> InputStatistics:
    """Of patches (rows, groups x elements)."""
    rows = x.view(len(x), groups, -1).transpose(0, 1)
    mean = rows.mean(1)
    centered = rows - mean.unsqueeze(1)
    return InputStatistics(mean, rows.square().mean(1), centered.transpose(1, 2) @ centered / len(x))


def correlated(rows: int, elements: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(elements // 2, elements, generator=generator)
    noise = torch.randn(rows, elements, generator=generator)
    return torch.randn(rows, elements // 2, generator=generator) @ mixing + 0.1 * noise + 0.3


def calibrated(weight: Tensor, bits: int, group_size: int = 0) -> WeightQuant:
    plain = WeightQuant(bits, group_size=group_size)
    return WeightQuant(bits, weight_scales(weight_rows(weight, plain), bits, "mse", group_size), group_size=group_size)


def on_grid(weight: Tensor, quant: WeightQuant, scale: Tensor) -> bool:
    return torch.equal(dequantized_weight(weight, WeightQuant(quant.bits, scale, group_size=quant.group_size)), weight)


@all_bits
@pytest.mark.parametrize("group_size", [0, 32])
def test_outputs_change_less_than_by_rounding_to_nearest(bits: int, group_size: int) -> None:
    torch.manual_seed(0)
    x, weight = correlated(600, 80), torch.randn(12, 80)
    quant = calibrated(weight, bits, group_size)
    rounding = learned_rounding(weight, quant, statistics_of(x), centered=False)
    assert on_grid(rounding.weight, quant, rounding.scale)

    def error(rounded: Tensor) -> float:
        return float((x @ (weight - rounded).T).square().mean())

    assert error(rounding.weight) < 0.7 * error(dequantized_weight(weight, quant))
    assert error(rounding.weight) <= 1.05 * error(learned_rounding(weight, quant, statistics_of(x), sweeps=0).weight)


@all_bits
def test_a_scale_may_be_kept(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 20)
    quant = calibrated(weight, bits)
    rounding = learned_rounding(weight, quant, statistics_of(correlated(200, 20)), ratios=(1.0,))
    assert quant.scale is not None
    assert torch.equal(rounding.scale, quant.scale)
    assert on_grid(rounding.weight, quant, rounding.scale)


@given(seed=st.integers(0, 10**6), bits=st.sampled_from([1, 2, 4]), groups=st.sampled_from([1, 2, 6]))
@settings(max_examples=15, deadline=None)
def test_every_group_of_a_convolution_is_rounded_for_itself(seed: int, bits: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(12, 2, 3, 3, generator=generator)
    x = correlated(100, groups * 18, seed)
    quant = calibrated(weight, bits)
    together = learned_rounding(weight, quant, statistics_of(x, groups))
    assert on_grid(together.weight, quant, together.scale)
    assert quant.scale is not None
    for group in range(groups):
        part = slice(group * 12 // groups, (group + 1) * 12 // groups)
        own = statistics_of(x[:, group * 18 : (group + 1) * 18])
        alone = learned_rounding(weight[part], WeightQuant(bits, quant.scale[part]), own)
        torch.testing.assert_close(together.weight[part], alone.weight)


def test_more_channels_than_fit_at_once_are_rounded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight, known = torch.randn(50, 150), statistics_of(correlated(400, 150))
    quant = calibrated(weight, 3)
    whole = learned_rounding(weight, quant, known)
    monkeypatch.setattr("kneepoint.compression.rounding._CHUNK", 150 * 12 * 7)
    torch.testing.assert_close(learned_rounding(weight, quant, known).weight, whole.weight)


def test_zeros_of_a_sparse_weight_stay() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(8, 40), correlated(300, 40)
    keep = torch.rand(8, 40) > 0.5
    quant = calibrated(weight * keep, 4)
    rounded = learned_rounding(weight, quant, statistics_of(x), centered=False, keep=keep).weight
    assert not rounded[~keep].any()
    plain = dequantized_weight(weight, quant) * keep
    assert (x @ (weight - rounded).T).square().mean() < (x @ (weight - plain).T).square().mean()


def test_what_zeros_change_is_taken_up_by_the_other_weights() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(8, 40), correlated(300, 40)
    keep = weight.abs() > weight.abs().median()
    fitted = refitted(weight, keep, statistics_of(x), centered=False)
    assert not fitted[~keep].any()
    least = torch.stack(
        [torch.linalg.lstsq(x * mask, x @ row, driver="gelsd").solution for row, mask in zip(weight, keep, strict=True)]
    )

    def error(rows: Tensor) -> float:
        return float((x @ (weight - rows).T).square().mean())

    assert error(least) <= error(fitted) < 0.5 * error(weight * keep)
    nothing = InputStatistics(torch.zeros(1, 40), torch.ones(1, 40), None)
    assert torch.equal(refitted(weight, keep, nothing), weight * keep)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 10)
    quant = calibrated(weight, 4)
    nothing = InputStatistics(torch.zeros(1, 10), torch.zeros(1, 10), torch.zeros(1, 10, 10))
    assert torch.equal(
        learned_rounding(weight, quant, nothing, ratios=(1.0,)).weight, dequantized_weight(weight, quant)
    )
    x = correlated(100, 10)
    x[:, 3] = 0
    assert learned_rounding(weight, quant, statistics_of(x)).weight.isfinite().all()


def test_without_a_covariance_weights_go_to_the_nearest_point() -> None:
    weight = torch.randn(4, 10)
    quant = calibrated(weight, 4)
    known = InputStatistics(torch.zeros(1, 10), torch.ones(1, 10), None)
    rounding = learned_rounding(weight, quant, known)
    assert torch.equal(rounding.weight, dequantized_weight(weight, quant))
    assert rounding.scale is quant.scale


def test_a_scale_to_start_from_is_needed() -> None:
    with pytest.raises(ValueError, match="no weight scales yet"):
        learned_rounding(torch.randn(4, 10), WeightQuant(4), statistics_of(correlated(50, 10)))


@pytest.mark.parametrize("groups", [1, 3])
def test_a_corrected_bias_restores_the_mean_output(groups: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(200, groups, 8)
    weight = torch.randn(6, 8)
    rounded = dequantized_weight(weight, calibrated(weight, 2))

    def outputs(rows: Tensor) -> Tensor:
        return torch.einsum("ngk,gok->ngo", x, rows.view(groups, -1, 8)).flatten(1).mean(0)

    shift = bias_correction(weight, rounded, statistics_of(x.flatten(1), groups))
    assert shift.shape == (6,)
    torch.testing.assert_close(outputs(rounded) + shift, outputs(weight), rtol=1e-4, atol=1e-5)
