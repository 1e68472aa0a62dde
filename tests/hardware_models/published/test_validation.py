"""Device files against what was published."""

from __future__ import annotations

import statistics

import pytest

from kneepoint.hardware_models.device import PublishedRows
from kneepoint.hardware_models.devices import list_devices, load_device
from kneepoint.hardware_models.published.samples import samples
from kneepoint.hardware_models.published.validation import systems_of, validate
from kneepoint.tasks.errors import DeviceError

FITTED = [name for name in list_devices() if load_device(name).refined]


def test_the_devices_that_people_ask_for_are_there() -> None:
    assert len(FITTED) >= 30
    for name in ("raspberry-pi-3b", "raspberry-pi-4b", "raspberry-pi-5", "stm32f746", "stm32h743", "stm32l4r5"):
        assert any(device.startswith(name) for device in list_devices())


@pytest.mark.parametrize("name", [name for name in FITTED if load_device(name).published])
def test_a_file_ships_what_its_fit_predicts(name: str) -> None:
    """The file is priced kernel by kernel, the fit saw sums over networks: both say the same of typical networks."""
    found = validate(load_device(name))
    assert statistics.median(abs(row.shipped.log_error) for row in found.rows) < 0.3
    assert all(row.shipped.stated > 0 for row in found.rows)


def test_energy_is_power_times_time() -> None:
    found = validate(load_device("raspberry-pi-4b-tflite"))
    energies = {key: entry for key, entry in found.judgements().items() if key[1] == "energy"}
    assert set(energies) == {("fp32", "energy"), ("int8", "energy")}
    assert all(entry.mape < 0.15 for entry in energies.values())


def test_a_family_left_out_is_judged_too() -> None:
    found = validate(load_device("graviton3-armnn"))
    assert ("int8", "left out") in found.judgements()
    facts = found.to_json()
    assert facts["device"] == "graviton3-armnn"
    assert {"network", "published_ms", "predicted_ms", "error", "left_out_error"} <= facts["rows"][0].keys()


def test_a_device_that_nothing_was_published_of_is_refused() -> None:
    with pytest.raises(DeviceError, match="names no published latencies"):
        validate(load_device("x86-server"))
    rows = PublishedRows(device="toaster", runtime="none")
    unknown = load_device("graviton3-armnn").model_copy(update={"published": rows})
    with pytest.raises(DeviceError, match="no published latency is of"):
        validate(unknown)


def test_a_file_describes_one_system_in_each_precision() -> None:
    for name in FITTED:
        systems = systems_of(load_device(name))
        assert len({system.precision for system in systems}) == len(systems)
        assert all(samples()[system] for system in systems)
