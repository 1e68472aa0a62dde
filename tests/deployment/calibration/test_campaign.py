"""A few seconds of a real campaign, through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kneepoint.deployment.calibration.campaign import HELD_OUT, Campaign, Progress
from kneepoint.deployment.calibration.samples import read_samples
from kneepoint.hardware_models.fusion import FUSION_RULES
from kneepoint.tasks.errors import DeviceError


def test_a_campaign_keeps_every_network_and_holds_some_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kneepoint.deployment.device_program.SLOW", float("inf"))  # tests run side by side
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


def test_a_runtime_that_runs_none_of_the_networks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr("kneepoint.deployment.calibration.stopwatch.Stopwatch.time", refuse)
    with pytest.raises(DeviceError, match=r"does not run 21 of the networks to be timed: no such kernel$"):
        Campaign(0, (1,), FUSION_RULES, seconds=60.0).run(tmp_path / "samples.jsonl", lambda _: None)
