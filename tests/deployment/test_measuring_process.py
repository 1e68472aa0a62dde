from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kneepoint.deployment import measuring_process
from kneepoint.deployment.measuring_process import MeasuringProcess, Timed, machine_lock
from kneepoint.tasks.errors import JobFailed
from tests.deployment.small_models import doubler

WAITS = "from kneepoint.deployment.measuring_process import machine_lock\nwith machine_lock(): print('mine')"


def test_rounds_come_from_a_process_that_knows_nothing_of_the_caller() -> None:
    with MeasuringProcess([Timed(doubler(["n", 4]), 3, {})] * 2, 1) as process:
        assert process.batches == [3, 3]
        answer = process.round(1e-3)
        assert {key: len(values) for key, values in answer.items()} == dict.fromkeys(answer, 2)
        assert answer.keys() == {"medians", "means", "runs", "ratios"}
        pid = process._process.pid
        modules = Path(f"/proc/{pid}/maps").read_text()
        assert "torch" not in modules
        assert len(os.sched_getaffinity(pid)) == 1
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_that_dies_is_reported_with_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with MeasuringProcess([Timed(doubler([2]), 1, {})], 1) as process:
        process._process.send_signal(signal.SIGKILL)
        process._process.wait()
        with pytest.raises(JobFailed, match=r"the process that measures ended unexpectedly \(signal 9\)"):
            process.round(1e-3)
    (tmp_path / "broken.py").write_text("raise SystemExit('no runtime here')")
    monkeypatch.setattr(measuring_process, "_PROGRAM", tmp_path / "broken.py")
    with pytest.raises(JobFailed, match=r"\(exit code 1: no runtime here\)"):
        MeasuringProcess([Timed(doubler([2]), 1, {})], 1).__enter__()


def test_one_measures_at_a_time() -> None:
    with machine_lock(), subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as other:
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=0.2)
        other.kill()
    with machine_lock():
        pass
