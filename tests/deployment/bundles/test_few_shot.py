from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kneepoint.deployment.bundles.adapted_device import adapted_device, is_adapted
from kneepoint.deployment.bundles.base_prices import PARTS, BasePrices, group_of, with_guessed_rates
from kneepoint.deployment.bundles.few_shot import Adapted, Latencies, Validation, adapt, fit_factors, kind_of
from kneepoint.deployment.calibration.fitting import fit
from kneepoint.deployment.calibration.samples import Sample, SampleTable, TimedKernel
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.devices import load_device
from kneepoint.hardware_models.fusion import FUSION_RULES, fuse
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.hardware_models.workload import Workload
from kneepoint.tasks.errors import DeviceError
from tests.deployment.bundles.conftest import planned

TABLES = [read_onnx(one.network.model, batch=one.network.batch) for one in planned()]
ONES = np.ones(len(PARTS))
BASE = load_device("x86-server")


def samples(rules: tuple[str, ...], times: list[float] | None = None) -> list[Sample]:
    found = []
    for index, table in enumerate(TABLES):
        kernels = TimedKernel.all(fuse(table, rules), {})
        total = times[index] if times else 100.0
        found.append(Sample(index, 1, False, planned()[index].network.style, 1, total, False, 0.1, kernels))
    return found


def table_of(device: Device) -> SampleTable:
    return SampleTable.of(samples(tuple(device.fusion)))


def kinds() -> list[str]:
    return [one.network.style + str(one.number % 3) for one in planned()]


def calibrated() -> Device:
    """A device with a latency model of some variants, fitted to what a roofline says of them."""
    rules = tuple(FUSION_RULES)
    price = CostModel(BASE.model_copy(update={"fusion": rules}))
    timed = []
    for sample, table in zip(samples(rules), TABLES, strict=True):
        times = price.latencies(Workload.of(table, rules)) * 1e3 + 2.0
        rows = [TimedKernel(kernel.row, float(us)) for kernel, us in zip(sample.kernels, times, strict=True)]
        total = float(times.sum()) - len(times)
        timed.append(Sample(sample.index, 1, False, sample.style, 1, total, True, 0.1, tuple(rows)))
    model = fit(SampleTable.of(timed)).model
    content = {**BASE.model_dump(), "name": "mine", "threads": 1, "fusion": rules}
    content["calibration"] = {"threads": {"1": {**model.to_json(), "common_error": 0.05}}}
    return Device.model_validate(content)


CALIBRATED = calibrated()


@pytest.mark.parametrize("device", [BASE, load_device("raspberry-pi-4b"), CALIBRATED], ids=lambda device: device.name)
def test_parts_add_up_to_what_the_cost_model_says(device: Device) -> None:
    prices = BasePrices.of(device, table_of(device), device.threads)
    expected = [CostModel(prices.device).cost(Workload.of(table, device.fusion)).latency_ms * 1e3 for table in TABLES]
    np.testing.assert_allclose(prices.total_us(ONES), expected, rtol=1e-6)


@pytest.mark.parametrize("device", [BASE, load_device("raspberry-pi-4b"), CALIBRATED], ids=lambda device: device.name)
@settings(max_examples=8, deadline=None)
@given(logs=arrays(np.float64, len(PARTS), elements=st.floats(-2, 2)))
def test_an_adapted_device_prices_networks_as_its_factors_say(device: Device, logs: np.ndarray) -> None:
    prices = BasePrices.of(device, table_of(device), device.threads)
    validation = Validation(30, 0.1, 0.1, 0.5)
    adapted = Adapted(prices, np.exp(logs), 0.1, validation, validation)
    made = adapted_device(adapted, device.threads, {"name": "new"}, {"relative_error": "Adapted from device 'x'."})
    costs = [CostModel(made).cost(Workload.of(table, device.fusion)).latency_ms * 1e3 for table in TABLES]
    np.testing.assert_allclose(costs, prices.total_us(np.exp(logs)), rtol=1e-4)
    assert is_adapted(made)
    assert not is_adapted(device)
    assert made.power is None
    assert made.relative_error == 0.1


def test_factors_are_found_where_networks_tell_them_apart() -> None:
    prices = BasePrices.of(BASE, table_of(BASE), 1)
    true = ONES * 3.0
    true[PARTS.index("products int8")] = 12.0
    true[PARTS.index("bandwidth")] = 6.0
    measured = Latencies.of(prices.total_us(true), np.zeros(30), kinds())
    found = fit_factors(prices, measured, 0.003)
    np.testing.assert_allclose(prices.total_us(found), prices.total_us(true), rtol=0.05)
    assert found[PARTS.index("products int8")] == pytest.approx(12.0, rel=0.2)


def test_the_strongest_pull_leaves_one_factor() -> None:
    prices = BasePrices.of(BASE, table_of(BASE), 1)
    measured = Latencies.of(prices.total_us(ONES * 2.5), np.zeros(30), kinds())
    np.testing.assert_allclose(fit_factors(prices, measured, 1e6), 2.5, rtol=1e-3)


def test_the_most_similar_device_comes_first_with_an_honest_error() -> None:
    devices = [load_device("raspberry-pi-4b"), BASE]
    tables = {device.name: table_of(device) for device in devices}
    factors = ONES * 2.0
    factors[PARTS.index("products int8")] = 3.0
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(30))
    times = BasePrices.of(BASE, tables[BASE.name], 1).total_us(factors) * noise
    found = adapt(
        devices,
        lambda device: BasePrices.of(device, tables[device.name], 1),
        Latencies.of(times, np.zeros(30), kinds()),
    )
    assert [one.prices.device.name for one in found] == ["x86-server", "raspberry-pi-4b"]
    assert 0.03 < found[0].validation.rms_log < 0.2
    assert found[0].validation.rms_log < found[0].one_factor.rms_log


def test_a_latency_that_is_not_certain_moves_little() -> None:
    prices = BasePrices.of(BASE, table_of(BASE), 1)
    times = prices.total_us(ONES)
    times[7] *= 10
    doubt = np.zeros(30)
    doubt[7] = 5.0
    found = fit_factors(prices, Latencies.of(times, doubt, kinds()), 0.1)
    np.testing.assert_allclose(prices.total_us(found) / prices.total_us(ONES), 1, rtol=0.02)


@pytest.mark.parametrize(
    ("count", "names", "message"),
    [
        (19, ["a", "b"], "takes 20 networks or more; the results have 19"),
        (20, ["a", "a"], "networks of two kinds or more; all 20 are a"),
    ],
)
def test_too_little_is_refused(count: int, names: list[str], message: str) -> None:
    measured = Latencies.of(np.ones(count), np.zeros(count), (names * count)[:count])
    with pytest.raises(DeviceError, match=message):
        adapt([BASE], lambda device: pytest.fail("priced before it was checked"), measured)


def test_without_a_known_device_nothing_is_adapted() -> None:
    measured = Latencies.of(np.ones(20), np.zeros(20), ["a", "b"] * 10)
    with pytest.raises(DeviceError, match="no known device to adapt"):
        adapt([], lambda device: pytest.fail("there is none"), measured)


def test_kernels_belong_to_groups_by_kind_and_what_they_compute_with() -> None:
    found = {group_of("conv", "fp32"), group_of("linear", "dynamic"), group_of("linear", "packed4")}
    assert found == {0, 1, 2}
    assert group_of("depthwise_conv", "int8") == group_of("grouped_conv", "int8")
    assert group_of("transpose", "int8") == group_of("quantize", "fp32")
    assert kind_of("head", ["dynamic", "int8", "packed4"]) == "head int8 and packed"
    assert kind_of("chain", []) == "chain without products"


def test_a_rate_that_a_device_lacks_is_that_of_the_most_similar_kind() -> None:
    rates = {"conv": {"fp32": 10.0, "int8": 30.0}, "depthwise_conv": {"fp32": 1.0, "int8": 2.0}}
    lacking = BASE.model_copy(update={"rates": rates, "formats": {"default": ("fp32", "int8")}})
    guessed = with_guessed_rates(lacking).rates
    assert guessed["grouped_conv"]["int8"] == 2.0
    assert guessed["linear"]["int8"] == 30.0
    assert BasePrices.of(lacking, table_of(BASE), 1).lacking["linear fp32"] > 0
