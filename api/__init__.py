"""kneepoint: a trained network, its data and a list of devices in, the Pareto front of deployable networks out.

    task = kneepoint.Task(model, example_input, train, validation)
    space = kneepoint.joint_space(task)
    result = kneepoint.search(task, space, [kneepoint.Accuracy(), kneepoint.Latency("raspberry-pi-4b")])
    kneepoint.export(result.front.knee(), "deploy/")

Public names load when they are first used, so that importing the package or one of its rooms stays cheap.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import kneepoint.search  # noqa: F401 - its module is made callable below

if TYPE_CHECKING:
    from kneepoint.compression.distillation import Distillation
    from kneepoint.compression.settings import CompressionSettings, QuantizationSettings
    from kneepoint.deployment.bundles.importing import import_results
    from kneepoint.deployment.bundles.writing import write_bundle
    from kneepoint.deployment.measuring import compare_latency, measure
    from kneepoint.front_door import export, inspect, open_front, resume, search
    from kneepoint.hardware_models.devices import list_devices, load_device
    from kneepoint.objectives import (
        Accuracy,
        Energy,
        Latency,
        LatencyPerToken,
        Loss,
        MACs,
        MeasuredLatency,
        Objective,
        Parameters,
        PeakMemory,
        Size,
        View,
        objective,
    )
    from kneepoint.search.callbacks import Callback
    from kneepoint.search.driver import Result
    from kneepoint.search.front import Candidate, Front
    from kneepoint.search.mlflow_callback import MlflowCallback
    from kneepoint.search.tensorboard_callback import TensorBoardCallback
    from kneepoint.search.workers.settings import Workers
    from kneepoint.spaces.joint_space import JointSpace, joint_space
    from kneepoint.spaces.policy import Policy
    from kneepoint.spaces.students import StudentFamily
    from kneepoint.tasks import losses, metrics
    from kneepoint.tasks.metrics import Metric, Score
    from kneepoint.tasks.task import Task

_HOMES = {
    "Accuracy": "kneepoint.objectives.quality",
    "Callback": "kneepoint.search.callbacks",
    "Candidate": "kneepoint.search.front",
    "CompressionSettings": "kneepoint.compression.settings",
    "Distillation": "kneepoint.compression.distillation",
    "Energy": "kneepoint.objectives.costs",
    "Front": "kneepoint.search.front",
    "JointSpace": "kneepoint.spaces.joint_space",
    "Latency": "kneepoint.objectives.costs",
    "LatencyPerToken": "kneepoint.objectives.token_latency",
    "Loss": "kneepoint.objectives.quality",
    "MACs": "kneepoint.objectives.costs",
    "MeasuredLatency": "kneepoint.objectives.measured",
    "Metric": "kneepoint.tasks.metrics",
    "MlflowCallback": "kneepoint.search.mlflow_callback",
    "Objective": "kneepoint.objectives.objective",
    "Parameters": "kneepoint.objectives.costs",
    "PeakMemory": "kneepoint.objectives.costs",
    "Policy": "kneepoint.spaces.policy",
    "QuantizationSettings": "kneepoint.compression.settings",
    "Result": "kneepoint.search.driver",
    "Score": "kneepoint.tasks.metrics",
    "Size": "kneepoint.objectives.costs",
    "StudentFamily": "kneepoint.spaces.students",
    "Task": "kneepoint.tasks.task",
    "TensorBoardCallback": "kneepoint.search.tensorboard_callback",
    "View": "kneepoint.objectives.view",
    "Workers": "kneepoint.search.workers.settings",
    "compare_latency": "kneepoint.deployment.measuring",
    "export": "kneepoint.front_door",
    "import_results": "kneepoint.deployment.bundles.importing",
    "inspect": "kneepoint.front_door",
    "joint_space": "kneepoint.spaces.joint_space",
    "list_devices": "kneepoint.hardware_models.devices",
    "load_device": "kneepoint.hardware_models.devices",
    "measure": "kneepoint.deployment.measuring",
    "objective": "kneepoint.objectives.objective",
    "open_front": "kneepoint.front_door",
    "resume": "kneepoint.front_door",
    "write_bundle": "kneepoint.deployment.bundles.writing",
}

__all__ = [
    "Accuracy",
    "Callback",
    "Candidate",
    "CompressionSettings",
    "Distillation",
    "Energy",
    "Front",
    "JointSpace",
    "Latency",
    "LatencyPerToken",
    "Loss",
    "MACs",
    "MeasuredLatency",
    "Metric",
    "MlflowCallback",
    "Objective",
    "Parameters",
    "PeakMemory",
    "Policy",
    "QuantizationSettings",
    "Result",
    "Score",
    "Size",
    "StudentFamily",
    "Task",
    "TensorBoardCallback",
    "View",
    "Workers",
    "compare_latency",
    "export",
    "import_results",
    "inspect",
    "joint_space",
    "list_devices",
    "load_device",
    "losses",
    "measure",
    "metrics",
    "objective",
    "open_front",
    "resume",
    "search",
    "write_bundle",
]


class _SearchRoom(ModuleType):
    """The room ``kneepoint.search``, which can also be called: users write ``kneepoint.search(task, ...)``.

    A package and a function of one name cannot both be the attribute; so the module itself answers the call.
    """

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """See :func:`kneepoint.front_door.search`."""
        return importlib.import_module("kneepoint.front_door").search(*args, **keywords)


sys.modules["kneepoint.search"].__class__ = _SearchRoom


def __getattr__(name: str) -> Any:
    if name in ("losses", "metrics"):
        return importlib.import_module(f"kneepoint.tasks.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'kneepoint' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
