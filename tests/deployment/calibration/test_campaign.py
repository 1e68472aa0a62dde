"""A few seconds of a real campaign, through ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kneepoint.deployment.calibration import calibrate
from kneepoint.deployment.calibration.calibrator import samples_file
from kneepoint.deployment.calibration.campaign import HELD_OUT, Campaign, Progress
from kneepoint.deployment.calibration.executed import TimedNode, pair
from kneepoint.deployment.calibration.micro_networks import draw
from kneepoint.deployment.calibration.samples import Sample, TimedKernel, read_samples
from kneepoint.deployment.runtime import open_session
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.devices import load_device
from kneepoint.hardware_models.fusion import FUSION_RULES, fuse
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.hardware_models.workload import Workload
from kneepoint.tasks.errors import DeviceError


@pytest.mark.parametrize("seed", range(12))
def test_every_micro_network_runs_and_can_be_read(seed: int) -> None:
    random = np.random.default_rng(seed)
    network = draw(random)
    session = open_session(network.model.SerializeToString())
    (output,) = session.run(None, network.feeds(random))
    assert output.shape[0] == network.batch
    assert np.isfinite(output).all()
    assert fuse(read_onnx(network.model, batch=network.batch), FUSION_RULES)


def test_equal_seeds_draw_equal_networks() -> None:
    first, second = (draw(np.random.default_rng([3, 4])).model.SerializeToString() for _ in range(2))
    assert first == second


def kernel(kind: str, elements: int, layout: str = "") -> Kernel:
    return Kernel(kind, kind, "fp32", elements=elements, layout=layout)  # type: ignore[arg-type]  # any layout


def test_kernels_are_paired_by_family_and_size_in_order() -> None:
    nodes = [TimedNode("", "Add", 10, 1.0), TimedNode("", "Conv", 10, 2.0), TimedNode("", "Add", 10, 3.0)]
    pairs = pair([kernel("conv", 10), kernel("add", 10), kernel("add", 10)], nodes)
    assert [(place, node.microseconds) for place, node in pairs] == [(0, 2.0), (1, 1.0), (2, 3.0)]


def test_channels_that_fill_up_a_block_do_not_keep_a_kernel_from_its_node() -> None:
    nodes = [TimedNode("", "Conv", 160, 1.0)]
    assert len(pair([kernel("conv", 100, "blocked")], nodes)) == 1
    assert pair([kernel("conv", 100)], nodes) == []


def test_names_decide_where_sizes_do_not() -> None:
    wide, narrow = (replace(kernel("conv", 10), operators=(name,)) for name in ("Conv3", "Conv7"))
    nodes = [TimedNode("Conv7_nchwc", "Conv", 10, 1.0), TimedNode("Conv3_nchwc", "Conv", 10, 9.0)]
    assert [node.microseconds for _, node in pair([wide, narrow], nodes)] == [9.0, 1.0]


def test_where_counts_differ_nothing_is_paired() -> None:
    assert pair([kernel("add", 10), kernel("add", 10)], [TimedNode("", "Add", 10, 1.0)]) == []


def test_samples_come_back_from_their_lines(tmp_path: Path) -> None:
    sample = Sample(3, 2, True, "head", 4, 12.5, False, 0.1, (TimedKernel.of(kernel("add", 10), None),))
    file = tmp_path / "samples.jsonl"
    file.write_text(f"header\n{sample.to_line()}\n{sample.to_line()[:40]}")
    assert list(read_samples(file)) == [sample]


def test_a_campaign_keeps_every_network_and_holds_some_out(tmp_path: Path) -> None:
    heard: list[Progress] = []
    file = tmp_path / "samples.jsonl"
    file.write_text("header\n")
    campaign = Campaign(0, (1,), FUSION_RULES, seconds=1.5)
    campaign.run(file, heard.append)
    assert list(read_samples(file)) == campaign.samples
    assert [sample.held_out for sample in campaign.samples] == [s.index % HELD_OUT == 0 for s in campaign.samples]
    assert heard[-1].networks == len(campaign.samples) > 1
    known = [entry.microseconds for sample in campaign.samples for entry in sample.kernels]
    assert np.mean([found is not None for found in known]) > 0.8


def test_a_calibration_writes_a_device_that_prices_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / name)
    monkeypatch.setattr("kneepoint.deployment.calibration.calibrator._LEAST_MINUTES", 0.01)
    made = calibrate("mine", minutes=0.07, threads=(1,))
    device = load_device("mine")
    assert made.path.is_file()
    assert device.calibration is not None
    assert device.calibration.held_out["1"]["networks"] >= 1
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
