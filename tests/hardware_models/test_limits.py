"""Flash and RAM of a device: what exceeds them does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from kneepoint.hardware_models import load_device
from kneepoint.hardware_models.device import Device, Memory
from kneepoint.hardware_models.limits import misfits


def device(**memory: Any) -> Device:
    return load_device("raspberry-pi-4b").model_copy(update={"name": "mcu", "memory": Memory(**memory)})


def test_constants_that_stay_in_flash_are_held_against_it() -> None:
    mcu = device(limit_mb=0.5, flash_mb=2.0)
    assert misfits(mcu, 2_000_000, 500_000) == ()
    (flash,) = misfits(mcu, 3_000_000, 500_000)
    assert str(flash) == "constants take 3 MB of the 2 MB of flash of mcu"
    assert flash.excess == pytest.approx(0.5)


def test_the_peak_is_held_against_ram_on_any_device() -> None:
    (ram,) = misfits(device(limit_mb=0.5), 10**9, 600_000)  # storage is of no account without flash
    assert str(ram) == "the peak takes 0.6 MB of the 0.5 MB of RAM of mcu"
    assert [one.what for one in misfits(device(limit_mb=0.5, flash_mb=1), 2_000_000, 600_000)] == ["flash", "RAM"]
