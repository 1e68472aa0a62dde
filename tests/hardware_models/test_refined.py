"""Refined rooflines: known answers, thread counts, accelerators' cliffs, power by format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from kneepoint.hardware_models import CostModel, Device, Workload
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.precision import quantized

FITTED = {
    "fp32": {
        "launch_us": 10,
        "relative_error": 0.1,
        "classes": {"pointwise": {"rate": 1, "input": 8, "output": 24, "weight": 4}, "elementwise": {"rate": 0.5}},
    },
    "int8": {"launch_us": 5, "relative_error": 0.3, "classes": {"pointwise": {"rate": 4}}},
}
FIELDS: dict[str, Any] = {
    "name": "fitted",
    "description": "round numbers",
    "runtime": "none",
    "runtime_version": "0",
    "threads": 1,
    "formats": {"default": ["fp32", "int8"]},
    "rates": {},
    "element_rates": {},
    "scalar_rate": 0.01,
    "bandwidth_gb_s": 1.0,
    "floor_us": {"default": 0.0},
    "network_floor_us": 100.0,
    "fusion": ["direct", "activation"],
    "memory": {"limit_mb": 1.0},
    "power": {"active_w": 2.0, "by_format": {"int8": 3.0}, "relative_error": 0.1},
    "relative_error": 0.5,
    "thread_exponent": 1.0,
    "refined": FITTED,
}
SOURCED = (*FIELDS, "on_chip_weights", "per_channel_slowdown")


def device(**changes: Any) -> Device:
    return Device.model_validate({**FIELDS, **changes, "sources": dict.fromkeys(SOURCED, "made up for a test")})


def pointwise(*, integers: bool = False) -> Workload:
    """One convolution: 32 channels to 64 at 100 positions."""
    b = NetworkBuilder()
    table = b.table(b.conv(b.input(32, 10, 10), 64, 1))
    return Workload.of(quantized(table) if integers else table, ("direct",))


def test_a_kernel_takes_a_launch_and_its_work() -> None:
    operations = 32 * 64 * 100 + 8 * 3200 + 24 * 6400 + 4 * 2048
    cost = CostModel(device()).cost(pointwise())
    assert cost.latency_ms == pytest.approx(0.1 + 0.01 + operations / 1e6)
    assert cost.kernels[0].why == "fp32, at rates fitted to published latencies"
    assert cost.coverage == 1.0


def test_without_a_rate_for_fast_convolutions_they_cost_what_others_do() -> None:
    """A 3 x 3 of stride 1, which fast algorithms apply to."""
    b = NetworkBuilder()
    rows = Workload.of(b.table(b.conv(b.input(32, 10, 10), 64, 3)), ("direct",))
    macs, plain = 9 * 32 * 64 * 100, {"convolution": {"rate": 1}}
    for classes, operations in ((plain, macs), ({**plain, "winograd": {"rate": 2}}, macs / 2)):
        fitted = {"fp32": {"launch_us": 0, "relative_error": 0.1, "classes": classes}}
        cost = CostModel(device(refined=fitted)).cost(rows)
        assert cost.latency_ms == pytest.approx(0.1 + operations / 1e6)
        assert cost.coverage == 1.0


def test_integers_have_rates_errors_and_watts_of_their_own() -> None:
    model = CostModel(device())
    floats, integers = model.cost(pointwise()), model.cost(pointwise(integers=True))
    kernels = integers.latency_ms - 0.1
    assert kernels == pytest.approx(0.005 + 32 * 64 * 100 / 4e6)
    assert integers.latency_ms_error == pytest.approx(0.3 * kernels + 0.5 * 0.1)
    assert floats.latency_ms_error == pytest.approx(0.1 * (floats.latency_ms - 0.1) + 0.5 * 0.1)
    assert floats.energy_mj == pytest.approx(2 * floats.latency_ms)
    assert integers.energy_mj == pytest.approx(3 * kernels + 2 * 0.1)
    error, energy = integers.energy_mj_error, integers.energy_mj
    assert error is not None
    assert energy is not None
    assert error / energy == pytest.approx(np.hypot(integers.latency_ms_error / integers.latency_ms, 0.1))


def test_what_has_no_rate_is_bounded_and_said() -> None:
    b = NetworkBuilder()
    table = b.table(b.conv(b.input(32, 10, 10), 32, 3, groups=32))
    cost = CostModel(device()).cost(Workload.of(table, ("direct",)))
    assert [kernel.priced for kernel in cost.kernels] == [False]
    assert "no fp32 rate for depthwise_conv" in cost.unpriced[0].why


def test_rates_grow_with_threads() -> None:
    one, two = (CostModel(device().at_threads(count)).cost(pointwise()).latency_ms for count in (1, 2))
    assert two - 0.11 == pytest.approx((one - 0.11) / 2)


def test_weights_beyond_on_chip_memory_are_streamed_at_every_inference() -> None:
    memory = {"mb": 0.001, "stream_gb_s": 0.5}
    near, far = (CostModel(device(**extra)) for extra in ({}, {"on_chip_weights": memory}))
    added = far.cost(pointwise(integers=True)).latency_ms - near.cost(pointwise(integers=True)).latency_ms
    assert added == pytest.approx((2048 - 1000) / 0.5e6)
    wide = CostModel(device(on_chip_weights={"mb": 1, "stream_gb_s": 0.5}))
    assert wide.cost(pointwise()).latency_ms == near.cost(pointwise()).latency_ms


def test_half_precision_streams_half_the_bytes() -> None:
    memory = {"mb": 0.001, "stream_gb_s": 0.5}
    full, half = (CostModel(device(on_chip_weights=memory, float_bytes=width)) for width in (4, 2))
    added = full.cost(pointwise()).latency_ms - half.cost(pointwise()).latency_ms
    assert added == pytest.approx(2 * 2048 / 0.5e6)


def test_an_accelerator_without_scales_for_channels_slows_integer_layers_alone() -> None:
    usual, slow = CostModel(device()), CostModel(device(per_channel_slowdown=6.0))
    kernels = [model.latencies(pointwise(integers=True))[0] for model in (usual, slow)]
    assert kernels[1] == pytest.approx(6 * kernels[0])
    assert slow.latencies(pointwise())[0] == usual.latencies(pointwise())[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refined": {"fp33": FITTED["fp32"]}}, "fp33"),
        ({"refined": {"fp32": {**FITTED["fp32"], "classes": {"pointwize": {"rate": 1}}}}}, "pointwize"),
        ({"refined": {"fp32": {**FITTED["fp32"], "classes": {"pointwise": {"rate": 0}}}}}, "greater than 0"),
        ({"float_bytes": 3}, "float_bytes"),
        ({"per_channel_slowdown": 0.5}, "per_channel_slowdown"),
        ({"on_chip_weights": {"mb": float("nan"), "stream_gb_s": 1}}, "on_chip_weights"),
    ],
)
def test_a_wrong_device_file_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        device(**changes)
