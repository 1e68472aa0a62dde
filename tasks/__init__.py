"""The problem: a trained network, its data, and the metric and loss that judge it.

The public names are loaded when they are first used, so that importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kneepoint.tasks import digits, errors, losses, metrics
    from kneepoint.tasks.metrics import (
        Metric,
        Score,
        accuracy,
        as_metric,
        cross_entropy,
        mean_absolute_error,
        mean_squared_error,
    )
    from kneepoint.tasks.seeding import digest_seed, seeded
    from kneepoint.tasks.task import Split, Task
    from kneepoint.tasks.training import fit

__all__ = [
    "Metric",
    "Score",
    "Split",
    "Task",
    "accuracy",
    "as_metric",
    "cross_entropy",
    "digest_seed",
    "digits",
    "errors",
    "fit",
    "losses",
    "mean_absolute_error",
    "mean_squared_error",
    "metrics",
    "seeded",
]

_MODULES = ("digits", "errors", "losses", "metrics")
_HOMES = {
    "Metric": "metrics",
    "Score": "metrics",
    "Split": "task",
    "Task": "task",
    "accuracy": "metrics",
    "as_metric": "metrics",
    "cross_entropy": "metrics",
    "digest_seed": "seeding",
    "fit": "training",
    "mean_absolute_error": "metrics",
    "mean_squared_error": "metrics",
    "seeded": "seeding",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
