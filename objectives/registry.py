"""Objectives by name, as job files and constraints write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kneepoint.objectives.costs import Energy, Latency, MACs, Parameters, PeakMemory, Size
from kneepoint.objectives.measured import MEASURED, MeasuredLatency
from kneepoint.objectives.objective import Objective, ObjectiveFunction, objective
from kneepoint.objectives.quality import Accuracy, Loss
from kneepoint.objectives.token_latency import PER_TOKEN, LatencyPerToken
from kneepoint.tasks.errors import ObjectiveError, nearest
from kneepoint.tasks.task import Task

_ANYWHERE: dict[str, Callable[[], Objective]] = {
    "loss": Loss,
    "size_mb": Size,
    "parameters": Parameters,
    "macs": MACs,
}
_ON_DEVICE: dict[str, Callable[[str], Objective]] = {
    "latency_ms": Latency,
    "energy_mj": Energy,
    "peak_memory_mb": PeakMemory,
}


def objective_named(name: str, task: Task) -> Objective:
    """The ready objective called ``name``: ``size_mb``, ``latency_ms@DEVICE``, the task's metric, ...

    Raises:
        ObjectiveError: If there is none; the message names the nearest.
        DeviceError: If the device is unknown.
    """
    if name.startswith(MEASURED):
        return MeasuredLatency.named(name)
    if name.startswith(PER_TOKEN):
        return LatencyPerToken.named(name)
    kind, at, device = name.partition("@")
    if at and kind in _ON_DEVICE:
        return _ON_DEVICE[kind](device)
    if name == task.metric.name:
        return Accuracy().bind(task)
    if name in _ANYWHERE:
        return _ANYWHERE[name]()
    on_device = [*_ON_DEVICE, f"{PER_TOKEN}/context-256"]
    known = [task.metric.name, *_ANYWHERE, MeasuredLatency().name, *(f"{key}@DEVICE" for key in on_device)]
    raise ObjectiveError(f"unknown objective {name!r}; {nearest(name, known)}")


def bind_objectives(objectives: Sequence[Objective | ObjectiveFunction | str], task: Task) -> list[Objective]:
    """Objectives, functions and names as objectives of ``task``, in order.

    Raises:
        ObjectiveError: If one is unknown or malformed, two share a name, or there are none.
    """
    bound = [_checked(_bind(entry, task)) for entry in objectives]
    names = [entry.name for entry in bound]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ObjectiveError(f"every objective has a name of its own; {twice[0]!r} is there twice")
    if not bound:
        raise ObjectiveError("a search needs at least one objective, for example kneepoint.Accuracy(); got none")
    return bound


def _bind(entry: Objective | ObjectiveFunction | str, task: Task) -> Objective:
    if isinstance(entry, str):
        return objective_named(entry, task)
    if isinstance(entry, Objective):
        return entry.bind(task)
    if isinstance(entry, type):
        raise ObjectiveError(
            f"an objective is an instance; got the class {entry.__name__}: write {entry.__name__}(...)"
        )
    if callable(entry):
        return objective(entry)
    raise ObjectiveError(f"an objective is a name, an Objective or a function f(view) -> float; got {entry!r}")


def _checked(entry: Objective) -> Objective:
    """What a user's own subclass may have left out.

    Raises:
        ObjectiveError: If it has no name, or a direction that there is not.
    """
    name = getattr(entry, "name", "")
    if not isinstance(name, str) or not name:
        raise ObjectiveError(f"an objective has a name, as in size_mb; {type(entry).__name__} sets none")
    if entry.direction not in ("maximize", "minimize"):
        raise ObjectiveError(f"objective {name!r} has the direction 'maximize' or 'minimize'; got {entry.direction!r}")
    return entry
