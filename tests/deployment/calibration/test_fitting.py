"""Fits to samples whose law is known: what goes in must come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from kneepoint.deployment.calibration.fitting import fit, trees_of
from kneepoint.deployment.calibration.judging import judge, with_errors
from kneepoint.deployment.calibration.samples import Sample, SampleTable, TimedKernel
from kneepoint.hardware_models.kernels import GEOMETRY, Kernel

PROFILER_US, FLOOR_US = 1.5, 3.0


def relu(elements: int) -> Kernel:
    geometry = tuple(elements if name == "span" else 0 for name in GEOMETRY)
    sizes: dict[str, Any] = {"input_bytes": 4 * elements, "output_bytes": 4 * elements, "elements": elements}
    return Kernel("relu", "activation", "fp32", function="relu", geometry=geometry, **sizes)


def law(elements: int) -> float:
    """Microseconds: a launch, and two thousand elements in each."""
    return 0.8 + elements / 2000


def samples(count: int, seed: int, noise: float = 0.01, kernels: int = 8) -> SampleTable:
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        drawn = int(random.integers(1, 2 * kernels))
        sizes = np.exp(random.uniform(np.log(100), np.log(2e5), drawn)).astype(int)
        times = [law(int(size)) * float(np.exp(noise * random.standard_normal())) for size in sizes]
        seen = {place: time + PROFILER_US for place, time in enumerate(times)}
        timed = TimedKernel.all([relu(int(size)) for size in sizes], seen)
        made.append(Sample(index, 1, False, "", 1, sum(times) + FLOOR_US, True, 0.1, timed))
    return SampleTable.of(made)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return fit(samples(150, seed=0))


def test_the_law_comes_out(fitted: Any) -> None:
    fresh = samples(40, seed=1, noise=0.0)
    latency, priced = fitted.model.predict(fresh.workload)
    expected = [law(int(elements)) for elements in fresh.workload.elements]
    assert priced.all()
    assert np.median(np.abs(latency / expected - 1)) < 0.05


def test_whole_networks_come_out_with_their_floor(fitted: Any) -> None:
    found = judge(fitted, samples(60, seed=2, noise=0.0))
    assert found.network_mape < 0.03
    assert found.within_10 == 1.0
    assert found.coverage == 1.0


def test_errors_are_those_of_fresh_samples(fitted: Any) -> None:
    model = with_errors(fitted, samples(60, seed=3, noise=0.1))
    assert 0.05 < model.kernel_error < 0.2
    assert model.common_error >= 0.01


def test_a_variant_seen_too_seldom_has_no_price() -> None:
    model = fit(samples(1, seed=0, kernels=1)).model
    assert model.variants == {}
    assert not model.predict(samples(1, seed=1).workload)[1].any()


def test_kernels_that_could_not_be_told_apart_are_left_out() -> None:
    table = samples(30, seed=4)
    table.microseconds[::2] = np.nan
    known = int(np.isfinite(table.microseconds).sum())
    assert fit(table).model.variants["activation:fp32:plain:relu"].samples == known


def test_equal_samples_give_equal_models() -> None:
    assert fit(samples(30, seed=5)).model.to_json() == fit(samples(30, seed=5)).model.to_json()


def test_complete_trees_predict_what_the_library_predicts() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((200, 5)).astype(np.float32)
    target = rows[:, 0] * rows[:, 1] + (rows[:, 2] > 0)
    boosting = GradientBoostingRegressor(n_estimators=30, max_depth=3, learning_rate=0.1, random_state=0)
    boosting.fit(rows, target)
    assert trees_of(boosting).predict(rows) == pytest.approx(boosting.predict(rows), abs=2e-3)  # 16-bit leaves
