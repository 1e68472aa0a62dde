from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kneepoint.deployment.calibration import calibrate
from kneepoint.deployment.calibration.calibrator import samples_file
from kneepoint.deployment.calibration.micro_networks import draw
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.devices import load_device
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.hardware_models.workload import Workload
from kneepoint.tasks.errors import DeviceError


def test_a_calibration_writes_a_device_that_prices_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / name)
    monkeypatch.setattr("kneepoint.deployment.calibration.calibrator._LEAST_MINUTES", 0.01)
    monkeypatch.setattr("kneepoint.deployment.calibration.calibrator._FEWEST_NETWORKS", 3)
    monkeypatch.setattr("kneepoint.deployment.device_program.SLOW", float("inf"))  # tests run side by side
    made = calibrate("mine", minutes=0.07, threads=(1,))
    device = load_device("mine")
    assert made.path.is_file()
    assert device.calibration is not None
    assert device.calibration.held_out["1"]["kernels"] >= 1
    assert not samples_file("mine").exists()
    network = draw(np.random.default_rng(1))
    cost = CostModel(device).cost(Workload.of(read_onnx(network.model, batch=network.batch), device.fusion))
    assert cost.latency_ms > 0
    assert cost.coverage > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "My Machine"}, r"lower-case letters.*'My Machine'"),
        ({"minutes": 0.01}, r"at least 0\.2 minutes; got 0\.01"),
        ({"minutes": float("nan")}, "got nan"),
        ({"threads": (4096,)}, r"between 1 and the \d+ cores of this machine; got \[4096\]"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_timed(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        calibrate(**arguments)  # type: ignore[arg-type]  # bad on purpose
