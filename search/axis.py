"""One objective of a front."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kneepoint.objectives.objective import Direction, Scale
from kneepoint.tasks.errors import InputError, nearest

_COST = re.compile(r"@|^(size_mb|parameters|macs)$")


@dataclass(frozen=True)
class Axis:
    """One objective of a front.

    Attributes:
        name: The objective's.
        direction: ``maximize`` or ``minimize``.
        unit: For people.
        scale: Maps values to [0, 1], 0 the best.
    """

    name: str
    direction: Direction
    unit: str
    scale: Scale

    @property
    def device(self) -> str:
        """The device in the name, or an empty string."""
        return self.name.partition("@")[2]


def quality_of(axes: Sequence[Axis]) -> list[bool]:
    """For every objective, whether it says how well a candidate answers; the others are costs.

    What is maximized does, and so does the loss. Where there is neither (the metric is an error, say), what is no cost
    by its name does.
    """
    known = [axis.direction == "maximize" or axis.name == "loss" for axis in axes]
    return known if any(known) else [_COST.search(axis.name) is None for axis in axes]


def devices_of(axes: Sequence[Axis]) -> list[str]:
    """The devices that the objectives are about, sorted."""
    return sorted({axis.device for axis in axes if axis.device})


def axes_of(axes: Sequence[Axis], device: str) -> list[Axis]:
    """The objectives that concern ``device``: its own, and those of no device.

    Raises:
        InputError: If none is about it.
    """
    devices = devices_of(axes)
    if device not in devices:
        raise InputError(f"no objective of the run is about device {device!r}; {nearest(device, devices)}")
    return [axis for axis in axes if axis.device in ("", device)]
