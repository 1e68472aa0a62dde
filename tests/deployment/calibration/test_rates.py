from __future__ import annotations

import pytest

from kneepoint.deployment.calibration.rates import floors_us, peak_rates, thread_exponent
from kneepoint.deployment.calibration.samples import Sample, SampleTable, TimedKernel
from kneepoint.hardware_models.kernels import Kernel


def sample(index: int, threads: int, total_us: float) -> Sample:
    conv = Kernel("conv", "conv", "fp32", macs=10**6, elements=100)
    relu = Kernel("relu", "activation", "fp32", elements=4000)
    timed = TimedKernel.all([conv, relu], {0: 2.0 + 10, 1: 2.0 + 2})
    return Sample(index, threads, True, "", 1, total_us, True, 0.1, timed)


TABLE = SampleTable.of([sample(index, 1, 10.0) for index in range(6)])


def test_rates_are_operations_over_time_without_the_profiler() -> None:
    rates = peak_rates(TABLE)
    assert rates["rates"] == {"conv": {"fp32": pytest.approx(100)}}  # 10^6 in 10 us
    assert rates["element_rates"] == {"activation": {"fp32": pytest.approx(2)}, "default": {"fp32": pytest.approx(2)}}


def test_floors_are_those_of_the_fastest_kernels() -> None:
    assert floors_us(TABLE) == {"default": 6.0, "conv": 10.0, "activation": 2.0}


def test_the_exponent_compares_equal_networks() -> None:
    samples = [sample(index, 1, 100.0 + index) for index in range(3)]
    samples += [sample(index, 4, 50.0 + index / 2) for index in range(3)]
    assert thread_exponent(samples, (1, 4)) == 0.5
    assert thread_exponent(samples[:3], (1,)) is None
