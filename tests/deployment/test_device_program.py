from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest

from kneepoint.deployment import device_program
from kneepoint.deployment.calibration.stopwatch import reference_feeds, reference_network
from kneepoint.deployment.device_program import (
    Progress,
    Refused,
    Results,
    Stopwatch,
    is_tight,
    machine_facts,
    session_options,
)
from kneepoint.deployment.timing import median_interval


@pytest.mark.parametrize("count", [1, 5, 6, 20, 40, 150, 600])
def test_a_median_is_as_tight_as_its_interval_says(count: int) -> None:
    times = 100 + np.random.default_rng(count).random(count) * 40
    interval = median_interval(times)
    for width in (0.9, 1.1):
        scaled = interval.value + (times - interval.value) * 0.04 * interval.value / (interval.high - interval.low or 1)
        assert is_tight((interval.value + (scaled - interval.value) * width).tolist()) is (width < 1 or count == 1)


def test_numbers_next_to_zero_take_no_longer_than_others() -> None:
    assert session_options(1, ()).get_session_config_entry("session.set_denormal_as_zero") == "1"


def test_the_machine_is_described_in_plain_values() -> None:
    facts = json.loads(json.dumps(machine_facts(), allow_nan=False))
    assert facts["cores"] >= 1
    assert facts["bandwidth_gb_s"] > 0
    assert all(rate >= facts["bandwidth_gb_s"] for _, rate in facts["caches"])


def test_progress_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    now = time.monotonic()
    progress = Progress(left=20, start=now - 100, end=now + 1e9, done=9)
    progress.say(3, 4, {"us": 1500.0})
    assert "10/20 networks, about 2 min left; the last, 3 on 4 thread(s): 1.500 ms" in said.getvalue()
    progress.say(4, 4, {"us": 1500.0})  # a log has every tenth
    assert said.getvalue().count("\n") == 1


def test_a_runtime_that_runs_nothing_is_said_to_be_too_old(tmp_path: Path) -> None:
    run = device_program.Run(tmp_path, {}, Results(tmp_path / "results"), profile=False, end=0.0)
    for _ in range(5):
        assert run._refuse(RuntimeError("opset 21 is not supported\nmore"))["reason"] == "opset 21 is not supported"
    with pytest.raises(
        Refused, match=r"runs none of the first networks \(version 1\.18 or newer is needed\): opset 21"
    ):
        run._refuse(RuntimeError("opset 21 is not supported"))


def test_a_network_may_be_timed_as_a_whole_alone() -> None:
    watch = Stopwatch(reference_network(), reference_feeds(), 1)
    timing = watch.time(reference_network(), reference_feeds(), seconds=0, profile=False)
    assert timing.nodes == ()
    assert timing.total_us > 0
    assert timing.runs >= 5
    assert timing.spread >= 0
