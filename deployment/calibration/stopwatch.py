"""Times micro-networks through ONNX Runtime, and notices when the machine is not itself."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from kneepoint.deployment.calibration.executed import TimedNode, read_profile, steady_mean
from kneepoint.deployment.calibration.graph_builder import GraphBuilder
from kneepoint.deployment.timing import median_interval

_SILENT = 4
_SECONDS = 0.02
_FEWEST, _MOST, _MOST_PROFILED = 5, 150, 40
"""Runs; those with the profiler write a line for every kernel, and reading them takes longer than they did."""
_TIGHT, _PATIENCE = 0.02, 4
"""Half the interval of the median over it, which is small enough; for so many times the usual runs it is waited for."""
_SLOW = 1.12
"""The reference network takes at most this factor of its usual time while the machine is quiet."""
_REMEMBERED = 400
_RUNS_OF_A_BEAT = 3
_SPINNING_SECONDS = 0.005
"""For so long a session's threads wait for more work before they give their cores back."""


@dataclass(frozen=True)
class Timing:
    """One micro-network.

    Attributes:
        total_us: A robust mean of an inference, without the profiler.
        nodes: What the profiler saw.
        slowdown: How much slower than usual the reference network was before, between and after; the worst of them.
    """

    total_us: float
    nodes: tuple[TimedNode, ...]
    slowdown: float

    @property
    def quiet(self) -> bool:
        """Whether the machine was quiet meanwhile."""
        return self.slowdown <= _SLOW


@dataclass
class Stopwatch:
    """Times networks at one thread count, each beside a reference network that is always the same.

    Attributes:
        threads: Threads inside an operator.
        others: Cores for all of them but this one, which is the first; none to leave it to the system. Two threads that
            were left to it were seen to share a core for whole sessions.
        beats: Microseconds of the reference network, on all the cores at once, the last few hundred times: another core
            may be busy with something else, or both share what one alone has to itself.
    """

    threads: int
    others: Sequence[int] = ()
    beats: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def __post_init__(self) -> None:
        """Open the reference network, and learn what it usually takes."""
        graph = GraphBuilder(np.random.default_rng(0))
        x = graph.hardswish(graph.conv(graph.input(1, 32, 32, 32), 64, 3))
        model = graph.model([graph.unary("Sigmoid", graph.conv(x, 64))]).SerializeToString()
        # One thread: the threads of a second pool would spin, and take a core from the network that is timed.
        self._reference = onnxruntime.InferenceSession(model, _options(1, ()), providers=["CPUExecutionProvider"])
        self._feeds = {"input0": np.ones((1, 32, 32, 32), np.float32)}
        self._helpers = [ThreadPoolExecutor(1, initializer=_pin, initargs=(core,)) for core in self.others]
        for _ in range(20):
            self._beat()

    def time(self, model: bytes, feeds: Mapping[str, Any], seconds: float = _SECONDS) -> Timing:
        """How long ``model`` takes on ``feeds``.

        Args:
            model: As ONNX.
            feeds: Its inputs.
            seconds: For the runs with the profiler, and again for those without, which are up to four times as many
                while the interval of their median is wide; there are a few at least.
        """
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self.threads, self.others)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            session.run(None, feeds)
            once = _run_us(session, feeds)
            slowdowns = [self._slowdown()]
            for _ in range(min(_MOST_PROFILED, _runs(once, seconds))):
                session.run(None, feeds)
            profile = Path(session.end_profiling())  # from here on it runs without
            slowdowns.append(self._slowdown())
            session.run(None, feeds)
            totals = _steady_runs(session, feeds, _runs(once, seconds))
            slowdowns.append(self._slowdown())
            return Timing(steady_mean(totals), tuple(read_profile(profile)), max(slowdowns))

    def _slowdown(self) -> float:
        """The reference network's time over what it usually takes on a quiet machine."""
        beat = self._beat()
        return beat / float(np.percentile(self.beats, 20))

    def _beat(self) -> float:
        if self.threads > 1:
            time.sleep(_SPINNING_SECONDS)
        asked = [helper.submit(self._reference_us) for helper in self._helpers]
        slowest = max([self._reference_us(), *(future.result() for future in asked)])
        self.beats.append(slowest)
        return slowest

    def _reference_us(self) -> float:
        return statistics.median(_run_us(self._reference, self._feeds) for _ in range(_RUNS_OF_A_BEAT))


def _pin(core: int) -> None:
    """This thread alone."""
    os.sched_setaffinity(0, {core})


def _options(threads: int, others: Sequence[int]) -> Any:
    options = onnxruntime.SessionOptions()
    if others:
        cores = ";".join(str(core + 1) for core in others)  # the runtime counts from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", cores)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    return options


def _runs(once_us: float, seconds: float) -> int:
    return int(np.clip(seconds * 1e6 / max(once_us, 1.0), _FEWEST, _MOST))


def _steady_runs(session: Any, feeds: Mapping[str, Any], runs: int) -> list[float]:
    """Microseconds of as many runs, and of as many again while the median's interval is wide."""
    times: list[float] = []
    while not times or (len(times) < _PATIENCE * runs and not is_tight(times)):
        times += [_run_us(session, feeds) for _ in range(runs)]
    return times


def is_tight(times: Sequence[float]) -> bool:
    """Whether the 95 % interval of the median is within 2 % of it."""
    interval = median_interval(times)
    return interval.high - interval.low <= 2 * _TIGHT * interval.value


def _run_us(session: Any, feeds: Mapping[str, Any]) -> float:
    start = time.perf_counter_ns()
    session.run(None, feeds)
    return (time.perf_counter_ns() - start) / 1e3
