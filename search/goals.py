"""What a job's fronts are about, and what its constraints admit, in losses: 0 the ideal, 1 the worst useful value."""

from __future__ import annotations

from collections.abc import Sequence

from kneepoint.search.axis import Axis, axes_of, devices_of
from kneepoint.search.trials import Trials

_LEAST_LIMIT = 1e-3


def fronts_of(axes: Sequence[Axis]) -> list[list[int]]:
    """For every front of a job the places of its objectives: all, and where there are several devices each one's."""
    place = {axis.name: at for at, axis in enumerate(axes)}
    by_device = [[place[axis.name] for axis in axes_of(axes, device)] for device in devices_of(axes)]
    return [list(range(len(axes))), *(by_device if len(by_device) > 1 else [])]


def has_hidden_limits(trials: Trials) -> bool:
    """Whether constraints are about more than the objectives, so that :func:`limits_of` does not state them all.

    Fitting a device is one of them.
    """
    names = {axis.name for axis in trials.axes}
    named = [comparison.objective for comparison in trials.job.constraints.comparisons]
    return bool(trials.job.tight_devices) or any(name not in names for name in named)


def limits_of(trials: Trials) -> list[float]:
    """The largest loss of every objective that the constraints admit; at most 1."""
    directions = {entry.name: entry.direction for entry in trials.job.scored}
    limits = dict.fromkeys((axis.name for axis in trials.axes), 1.0)
    scales = {axis.name: axis.scale for axis in trials.axes}
    for comparison in trials.job.constraints.comparisons:
        name = comparison.objective
        value = comparison.limit(trials.teacher_values, directions) if name in limits else None
        if value is not None:
            limits[name] = min(limits[name], max(scales[name](value), _LEAST_LIMIT))
    return list(limits.values())
