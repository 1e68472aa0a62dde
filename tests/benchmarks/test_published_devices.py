"""The parts of the benchmark of published devices that decide what is written."""

from __future__ import annotations

import pytest

from benchmarks.additive_roofline import leave_families_out
from benchmarks.published_devices_page import bars
from benchmarks.published_devices_picture import picture
from kneepoint.hardware_models.devices import load_device
from kneepoint.hardware_models.published.judging import Pair, judge
from kneepoint.hardware_models.published.samples import samples
from kneepoint.hardware_models.published.validation import systems_of, validate


def test_the_baseline_is_fitted_to_other_families_alone() -> None:
    (floats, _) = sorted(systems_of(load_device("raspberry-pi-4b-tflite")), key=lambda system: system.precision)
    entries = samples()[floats]
    found = dict(leave_families_out(entries))
    assert set(found) == set(entries)
    judged = judge([Pair(sample.latency_ms, predicted) for sample, predicted in found.items()])
    assert 0.01 < judged.mape < 0.3
    assert not list(leave_families_out([sample for sample in entries if sample.family == "MobileNetV1"]))


def test_bars_and_picture_are_of_what_was_found() -> None:
    names = ("graviton3-armnn", "stm32l4r5", "nvidia-t4-tensorrt", "coral-edge-tpu-usb", "raspberry-pi-4b-tflite")
    devices = {name: load_device(name) for name in names}
    found = {name: validate(device) for name, device in devices.items()}
    listed = {bar.text: bar for bar in bars(found, devices)}
    pooled = [row.left_out for row in found["stm32l4r5"].rows if row.left_out is not None]
    assert listed["microcontrollers: MAPE of 15 % at most"].found.startswith(f"{judge(pooled).mape:.1%}")
    assert listed["energy on Raspberry Pi 4, as shipped: 15 % at most"].reached
    assert picture(found).startswith(b"\x89PNG")


def test_nothing_found_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to judge"):
        bars({}, {})
