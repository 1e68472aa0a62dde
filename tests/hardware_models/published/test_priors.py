"""What is believed of rates before any latency is seen."""

from __future__ import annotations

import numpy as np
import pytest

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES, WORK
from kneepoint.hardware_models.published.priors import PRIORS
from kneepoint.hardware_models.published.systems import World


@pytest.mark.parametrize("world", PRIORS)
def test_every_class_has_a_finite_belief(world: World) -> None:
    priors, classes = PRIORS[world], len(KERNEL_CLASSES)
    shapes = (priors.cost.shape, priors.cost_width.shape, priors.system_width.shape, priors.part.shape)
    assert shapes == ((classes + 2,), (classes + 2,), (classes + 2,), (classes, len(WORK) - 1))
    assert np.isfinite(priors.cost).all()
    assert np.isfinite(priors.part).all()
    widths = (*priors.cost_width, *priors.system_width, priors.part_width, priors.runtime_width, priors.group_width)
    assert min(*widths, priors.noise) > 0


@pytest.mark.parametrize("world", PRIORS)
def test_costs_are_relative_to_pointwise_kernels(world: World) -> None:
    cost = np.exp(PRIORS[world].cost)
    assert cost[KERNEL_CLASSES.index("pointwise")] == 1
    assert cost[KERNEL_CLASSES.index("depthwise")] > 1  # every element is used a few times only


@pytest.mark.parametrize("world", PRIORS)
def test_a_launch_is_many_operations_or_some_microseconds(world: World) -> None:
    launch = np.exp(PRIORS[world].cost[-2])
    assert launch > 100 if PRIORS[world].hastens_launches else 0.001 < launch < 0.1


def test_classes_that_move_elements_have_no_other_parts() -> None:
    for priors in PRIORS.values():
        moved = [KERNEL_CLASSES.index(name) for name in ("pool", "elementwise", "copy", "norm")]
        assert np.exp(priors.part[moved]).max() < 1e-3


def test_a_linear_layer_on_a_microcontroller_costs_about_one_operation_a_weight() -> None:
    priors, vector = PRIORS["microcontroller"], KERNEL_CLASSES.index("vector")
    cost = np.exp(priors.cost[vector]) * (1 + np.exp(priors.part[vector, -1]))
    assert 1 < cost < 2
