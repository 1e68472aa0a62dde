"""The fitted part of a device file."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES
from kneepoint.hardware_models.published.device_rates import inference_us, refined_rates
from kneepoint.hardware_models.published.hierarchy import Hierarchy
from kneepoint.hardware_models.published.leaving_out import fitted, of_world
from kneepoint.hardware_models.published.samples import Sample, samples
from kneepoint.hardware_models.published.systems import System


@pytest.fixture(scope="module")
def boards() -> Hierarchy:
    """Microcontrollers: the smallest world."""
    return fitted(of_world(samples(), "microcontroller"))


def test_rates_are_the_costs_of_the_fit(boards: Hierarchy) -> None:
    system = boards.systems[0]
    costs, parts = boards.costs_ms(system)
    rates = refined_rates(boards, system, 0.1234)
    place = KERNEL_CLASSES.index("pointwise")
    assert rates["classes"]["pointwise"]["rate"] == pytest.approx(1e-6 / costs[place], rel=1e-3)  # billions a second
    assert rates["classes"]["pointwise"]["output"] == pytest.approx(parts[place, 1], rel=1e-3)
    assert rates["launch_us"] == pytest.approx(costs[-2] * 1e3, rel=1e-3)
    assert rates["relative_error"] == 0.123
    assert inference_us(boards, [system]) == pytest.approx(costs[-1] * 1e3, rel=1e-3)


def test_runtimes_without_fast_convolutions_have_no_rate_for_them() -> None:
    for runtime, has in (("ncnn CPU", True), ("TFLite (ruy)", False)):
        system = System("a board", runtime, 1, "fp32", "fp32")
        fit = fitted({system: [Sample(system, "VGG-16 224", "VGG", 1, 500.0, None, 1.0)]})
        assert ("winograd" in refined_rates(fit, system, 0.1)["classes"]) == has
