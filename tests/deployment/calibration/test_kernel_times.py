"""Times of kernels from a profiler that adds to each, and a clock that sees their sum."""

from __future__ import annotations

import numpy as np
import pytest

from kneepoint.deployment.calibration.kernel_times import LEAST_US, Ruler, noise, robust_ridge
from kneepoint.deployment.calibration.samples import Sample, SampleTable, TimedKernel
from kneepoint.hardware_models.kernels import Kernel

SHARE_US = 2.5


def network(times: list[float], total_us: float, *, complete: bool = True, share: float = SHARE_US) -> Sample:
    kernels = [Kernel(f"k{place}", "add", "fp32", elements=100) for place in range(len(times))]
    seen = {place: time + share for place, time in enumerate(times)}
    return Sample(0, 1, False, "", 1, total_us, complete, 0.1, TimedKernel.all(kernels, seen))


def test_what_the_profiler_adds_shows_where_sums_exceed_totals() -> None:
    random = np.random.default_rng(0)
    drawn = [random.uniform(1, 50, size=int(random.integers(2, 20))).tolist() for _ in range(80)]
    ruler = Ruler.of(SampleTable.of([network(times, sum(times) + 1.0) for times in drawn]))
    assert ruler.profiler_us["add:fp32"] == pytest.approx(SHARE_US, abs=0.05)


def test_times_agree_with_the_total_of_their_network() -> None:
    table = SampleTable.of([network([4.0, 4.0, 100.0], 115.0 + 1.0)])
    latency, _ = Ruler({"add:fp32": SHARE_US}, network_floor_us=1.0).latency(table)
    assert 108.0 < latency.sum() < 115.0
    assert latency[2] - 100.0 > latency[0] - 4.0  # long ones are known less well in microseconds


def test_an_incomplete_network_keeps_what_the_profiler_saw() -> None:
    table = SampleTable.of([network([4.0, 5.0], 100.0, complete=False)])
    latency, _ = Ruler({"add:fp32": SHARE_US}).latency(table)
    assert latency.tolist() == pytest.approx([4.0, 5.0])


def test_what_is_believed_counts_most_for_the_shortest_kernels() -> None:
    table = SampleTable.of([network([0.5, 200.0], 1.0, complete=False)])
    latency, spread = Ruler({"add:fp32": SHARE_US}).latency(table, believed=np.array([1.0, 100.0]))
    assert latency[0] == pytest.approx(1.0, abs=0.05)
    assert 100.0 < latency[1] < 200.0
    assert (spread < noise(np.array([0.5, 200.0]))).all()


def test_what_the_model_says_nothing_of_is_as_the_profiler_saw_it() -> None:
    table = SampleTable.of([network([4.0, 5.0], 10.0)])
    ruler = Ruler({"add:fp32": SHARE_US}, network_floor_us=1.0)
    alone, _ = ruler.latency(table)
    latency, _ = ruler.latency(table, believed=np.array([np.nan, 5.0]))
    assert latency.tolist() == pytest.approx(alone.tolist())


def test_what_is_not_known_stays_unknown() -> None:
    table = SampleTable.of([network([1.0, 2.0], 10.0)])
    table.microseconds[0] = np.nan
    latency, _ = Ruler({}).latency(table)
    assert np.isnan(latency).tolist() == [True, False]


def test_no_kernel_takes_nothing() -> None:
    table = SampleTable.of([network([-2.0], 0.5, complete=False)])
    assert Ruler({"add:fp32": SHARE_US}).latency(table)[0].tolist() == [LEAST_US]


def test_a_robust_fit_is_not_moved_by_one_outlier() -> None:
    matrix, target = np.ones((50, 1)), np.full(50, 0.5)
    target[0] = 100.0
    assert robust_ridge(matrix, target, np.full(50, 0.1), prior=1.0)[0] == pytest.approx(0.5, abs=0.02)
