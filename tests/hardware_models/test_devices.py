"""Device files: those that ship, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import yaml

from kneepoint.hardware_models import Device, list_devices, load_device
from kneepoint.hardware_models.devices import SHIPPED
from kneepoint.tasks.errors import DeviceError

NAMES = ("raspberry-pi-4b", "x86-server")


@pytest.fixture(autouse=True)
def user_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda _: tmp_path)
    folder = tmp_path / "devices"
    folder.mkdir()
    return folder


def content() -> dict[str, Any]:
    loaded = yaml.safe_load((SHIPPED / "x86-server.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def written(folder: Path, **changes: object) -> Path:
    path = folder / "mine.yaml"
    fields = {**content(), "name": "mine", **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in fields.items() if value is not ...}))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_shipped_devices_load_and_name_their_sources(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert device.relative_error >= 0.3
    assert all(len(source) > 20 for source in device.sources.values())


def test_shipped_devices_are_listed() -> None:
    assert set(NAMES) <= set(list_devices())


def test_a_users_device_is_found_first_and_by_path(user_data: Path) -> None:
    path = written(user_data, threads=7)
    assert load_device("mine") == load_device(path) == load_device(str(path))
    assert "mine" in list_devices()
    shutil.copy(SHIPPED / "x86-server.yaml", user_data / "x86-server.yaml")
    changed = (user_data / "x86-server.yaml").read_text().replace("threads: 1", "threads: 2")
    (user_data / "x86-server.yaml").write_text(changed)
    assert load_device("x86-server").threads == 2


def test_the_digest_follows_the_content(user_data: Path) -> None:
    first = load_device(written(user_data)).digest
    assert first == load_device(written(user_data)).digest
    assert first != load_device(written(user_data, threads=2)).digest
    assert len(first) == 64


def test_unknown_devices_name_the_nearest() -> None:
    with pytest.raises(DeviceError, match="unknown device 'raspberry-pi-4'; did you mean 'raspberry-pi-4b'"):
        load_device("raspberry-pi-4")


@pytest.mark.parametrize("name", ["../secrets", "a/b", "", ".hidden", "Upper", "a\nb", "x86-server\n"])
def test_names_never_become_paths(name: str) -> None:
    with pytest.raises(DeviceError, match="a device is a name of lower-case letters"):
        load_device(name)


def test_this_machine_names_the_command_that_writes_it(user_data: Path) -> None:
    with pytest.raises(DeviceError, match=r"kneepoint devices calibrate.*ten minutes.*path of a device"):
        load_device("this-machine")
    written(user_data, name="this-machine").rename(user_data / "this-machine.yaml")
    assert load_device("this-machine").name == "this-machine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"treads": 2}, "unknown key 'treads', did you mean 'threads'"),
        ({"threads": 0}, "threads: Input should be greater than or equal to 1"),
        ({"threads": ...}, "threads: Field required"),
        ({"rates": {"convolution": {"fp32": 1.0}}}, "unknown kernel kind 'convolution'"),
        ({"rates": {"conv": {"fp32": 0.0}}}, "greater than 0"),
        ({"rates": {"conv": {"int4": 1.0}}}, "unknown format 'rates.conv.int4', did you mean 'int8'"),
        ({"bandwidth_gb_s": float("inf")}, "bandwidth_gb_s: Input should be a finite number"),
        ({"caches": [{"kb": 64, "bandwidth_gb_s": 1.0}]}, "caches grow, and are not faster than the one before"),
        (
            {"caches": [{"kb": 64, "bandwidth_gb_s": 90}, {"kb": 32, "bandwidth_gb_s": 50}]},
            "caches grow",
        ),
        (
            {"caches": [{"kb": 64, "bandwith_gb_s": 90}]},
            "unknown key 'caches.0.bandwith_gb_s', did you mean 'band",
        ),
        ({"memory": {"limit_mb": 1, "region": 1}}, "unknown key 'memory.region', did you mean 'region_kb'"),
        ({"power": {"active": 1.0}}, "unknown key 'power.active', did you mean 'active_w'"),
        (
            {"fallbacks": {"int8": "dynamic", "dynamic": "int8"}},
            "a fallback never leads back to itself; got ",
        ),
        ({"saturates": "sometimes"}, "saturates: Input should be a valid boolean"),
        ({"link_mb_s": 10.0}, "missing: link_mb_s"),
        ({"calibration": {"threads": {}}}, "calibration.threads: .*at least 1"),
        ({"calibration": {"threads": {"one": 1}}}, "a thread count is a positive number, in quotes; got 'one'"),
        ({"calibration": {"threads": {"2": 1}}}, "calibration.threads needs the device's own count, 1"),
        ({"calibration": {"thread": {"1": 1}}}, "unknown key 'calibration.thread', did you mean 'threads'"),
        ({"formats": {"conv": ["fp32"]}}, "formats needs the key 'default'"),
        ({"floor_us": {}}, "floor_us needs the key 'default'"),
        ({"sources": {}}, "sources says where every number comes from; missing: .*bandwidth_gb_s"),
        ({"fusion": ["everything"]}, "fusion.0"),
        ({"name": "My Device"}, "a device name has lower-case letters"),
    ],
)
def test_malformed_fields_are_named(user_data: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        load_device(written(user_data, **changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "holds a mapping of fields; got list"),
        ("!!python/object:os.system {}", "is not YAML"),
    ],
)
def test_other_files_are_refused(user_data: Path, text: str, message: str) -> None:
    path = user_data / "broken.yaml"
    path.write_text(text)
    with pytest.raises(DeviceError, match=message):
        load_device(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"none\.yaml: No such file"):
        load_device(tmp_path / "none.yaml")


def test_a_file_is_named_after_its_device(user_data: Path) -> None:
    written(user_data, name="another")
    with pytest.raises(DeviceError, match="named after its device; it says name: another"):
        load_device("mine")


def test_an_error_is_one_line(user_data: Path) -> None:
    path = user_data / "broken.yaml"
    for text in ("a: [\nb: }", "name: x", yaml.safe_dump({**content(), "name": "Broken", "treads": 1})):
        path.write_text(text)
        with pytest.raises(DeviceError) as caught:
            load_device(path)
        assert "\n" not in str(caught.value)


def test_a_copy_has_its_own_digest() -> None:
    device = Device.model_validate(content())
    assert device.digest != device.model_copy(update={"batch": 2}).digest
    assert device.digest == device.model_copy().digest


def test_fallbacks_are_followed_to_what_a_kind_executes() -> None:
    device = Device.model_validate(content())
    assert device.executed("linear", "dynamic") == "int8"
    assert device.executed("linear", "packed4") == "packed4"
    assert device.executed("embedding", "packed4") == "fp32"
    assert device.executed("conv_transpose", "dynamic") == "fp32"
    assert device.executed("conv", "int8") == "int8"


def test_a_large_calibration_is_kept_as_it_is(user_data: Path) -> None:
    blob = "A" * 1_000_000
    path = written(user_data, calibration={"threads": {"1": {"arrays": blob}}, "held_out": {"mape": 0.05}})
    device = load_device(path)
    assert device.calibration is not None
    assert device.calibration.threads["1"]["arrays"] == blob
    assert device.calibration.counts == (1,)
    assert len(device.digest) == 64


def test_power_may_be_unknown() -> None:
    assert Device.model_validate({**content(), "power": None}).power is None
