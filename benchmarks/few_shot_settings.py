"""The settings that stand for other devices in few_shot.py, and what visits networks in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from kneepoint.deployment import device_program
from kneepoint.deployment.device_program import TimedNode, pinned, steady_mean

_GROUP = Path("/sys/fs/cgroup/cpu/kneepoint-few-shot")
PERIOD_US, QUOTA_US = 5000, 2500
_SECONDS, _FEWEST, _MOST = 0.04, 5, 400
_ALL = ("activation", "residual", "blocked", "channels_last")


@dataclass(frozen=True)
class Setting:
    """One way to run networks here.

    Attributes:
        name: Of it.
        threads: Inside an operator.
        quota: Whether the process has half a core.
        extended: Whether the optimizer stops at its extended level.
        rules: The fusion rules that hold there.
    """

    name: str
    threads: int = 1
    quota: bool = False
    extended: bool = False
    rules: tuple[str, ...] = _ALL


SETTINGS = (
    Setting("one thread"),
    Setting("two threads", threads=2),
    Setting("half a core", quota=True),
    Setting("no blocked kernels", extended=True, rules=("activation",)),
)


@dataclass(frozen=True)
class Visitor:
    """Runs networks in one setting."""

    setting: Setting

    def visit(self, model: bytes) -> float:
        """Microseconds of an inference: a robust mean, and under a quota the mean, which is what a user waits."""
        with pinned(self.setting.threads) as others:
            session, feeds = self._session(model, others, profile=False)
            session.run(None, feeds)
            with quota() if self.setting.quota else _nothing():
                times = _times(session, feeds, 5 * _SECONDS if self.setting.quota else _SECONDS)
        return float(np.mean(times)) if self.setting.quota else steady_mean(times)

    def nodes(self, model: bytes) -> Sequence[tuple[Any, ...]]:
        """What the profiler sees, without the quota, which it does not; scaled by the quota's share."""
        with pinned(self.setting.threads) as others:
            session, feeds = self._session(model, others, profile=True)
            _times(session, feeds, _SECONDS / 2)
            path = Path(session.end_profiling())
        try:
            gain = PERIOD_US / QUOTA_US if self.setting.quota else 1.0
            return [_row(node, gain) for node in device_program.read_profile(path)]
        finally:
            path.unlink()

    def _session(self, model: bytes, others: Sequence[int], *, profile: bool) -> tuple[Any, dict[str, Any]]:
        options = device_program.session_options(self.setting.threads, others)
        if self.setting.extended:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.enable_profiling = profile
        options.profile_file_prefix = f"/tmp/few-shot-{os.getpid()}"  # noqa: S108 - read and removed at once
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        random = np.random.default_rng(0)
        return session, {entry.name: _made_up(entry, random) for entry in session.get_inputs()}


def _made_up(entry: Any, random: np.random.Generator) -> Any:
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    if entry.type == "tensor(int64)":
        return np.zeros(shape, np.int64)
    return np.abs(random.standard_normal(shape, np.float32))


def _times(session: Any, feeds: dict[str, Any], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _FEWEST or (time.perf_counter() < end and len(times) < _MOST):
        start = time.perf_counter_ns()
        session.run(None, feeds)
        times.append((time.perf_counter_ns() - start) / 1e3)
    return times


def _row(node: TimedNode, gain: float) -> tuple[Any, ...]:
    return node.name, node.operator, node.elements, node.microseconds * gain


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def quota_kind() -> str:
    """What holds this process to half a core."""
    return "a control group" if os.access(_GROUP.parent, os.W_OK) else "a duty cycle of SIGSTOP and SIGCONT"


@contextmanager
def quota() -> Iterator[None]:
    """This process has half a core meanwhile."""
    if quota_kind() != "a control group":
        with _duty_cycle():
            yield
        return
    _GROUP.mkdir(exist_ok=True)
    (_GROUP / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (_GROUP / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
    before = _group()
    (_GROUP / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        _GROUP.rmdir()


def _group() -> Path:
    """The group of this process."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    names = (line.split(":", 2) for line in lines)
    return next(_GROUP.parent / name.strip("/") for _, kinds, name in names if "cpu" in kinds.split(","))


@contextmanager
def _duty_cycle() -> Iterator[None]:
    """A second process stops and continues this one."""
    on, off = QUOTA_US / 1e6, (PERIOD_US - QUOTA_US) / 1e6
    program = (
        "import os, sys, time, signal\n"
        "while os.getppid() == int(sys.argv[1]):\n"
        f"    time.sleep({on}); os.kill(int(sys.argv[1]), signal.SIGSTOP)\n"
        f"    time.sleep({off}); os.kill(int(sys.argv[1]), signal.SIGCONT)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(os.getpid())]) as process:  # noqa: S603 - ours
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            os.kill(os.getpid(), signal.SIGCONT)
