"""Objectives of a front."""

from __future__ import annotations

import pytest

from kneepoint.objectives.objective import Scale
from kneepoint.search.axis import Axis, axes_of, devices_of, quality_of
from kneepoint.tasks.errors import InputError


def minimized(name: str) -> Axis:
    return Axis(name, "minimize", "", Scale(1.0, 0.0))


def test_devices_come_from_the_names(axes: tuple[Axis, ...]) -> None:
    assert devices_of([*axes, minimized("energy_mj@jetson")]) == ["jetson", "pi"]
    assert axes[0].device == ""


def test_a_device_keeps_its_own_objectives_and_those_of_none(axes: tuple[Axis, ...]) -> None:
    kept = axes_of([*axes, minimized("latency_ms@jetson")], "pi")
    assert [axis.name for axis in kept] == ["accuracy", "latency_ms@pi", "size_mb"]


def test_an_unknown_device_names_the_nearest(axes: tuple[Axis, ...]) -> None:
    with pytest.raises(InputError, match=r"no objective of the run is about device 'pie'; did you mean 'pi'"):
        axes_of(axes, "pie")


def test_quality_is_what_is_maximized_or_else_no_cost_by_its_name(axes: tuple[Axis, ...]) -> None:
    assert quality_of(axes) == [True, False, False]
    assert quality_of([axes[0], minimized("loss"), minimized("sparsity")]) == [True, True, False]
    assert quality_of([minimized("rmse"), minimized("latency_ms@pi"), minimized("macs")]) == [True, False, False]
