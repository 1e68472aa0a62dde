"""Choosing, running and recording trials.

The public names are loaded when they are first used, so that importing this package imports neither torch nor Optuna.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kneepoint.search.axis import Axis
    from kneepoint.search.driver import Driver, Result
    from kneepoint.search.evaluator import Evaluator
    from kneepoint.search.front import Candidate, Front
    from kneepoint.search.job import Job
    from kneepoint.search.progress import Status
    from kneepoint.search.record import Record
    from kneepoint.search.run_directory import RunDirectory
    from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
    from kneepoint.search.trial_log import TrialLog

__all__ = [
    "Axis",
    "Candidate",
    "Driver",
    "Evaluator",
    "Front",
    "Job",
    "KneepointSampler",
    "Record",
    "Result",
    "RunDirectory",
    "Status",
    "TrialLog",
]

_HOMES = {
    "Axis": "axis",
    "Candidate": "front",
    "Driver": "driver",
    "Evaluator": "evaluator",
    "Front": "front",
    "Job": "job",
    "KneepointSampler": "sampling.kneepoint_sampler",
    "Record": "record",
    "Result": "driver",
    "RunDirectory": "run_directory",
    "Status": "progress",
    "TrialLog": "trial_log",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
