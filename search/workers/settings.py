"""How many workers a job asks for, and what each may use."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from kneepoint.tasks.errors import JobError, nearest


@dataclass(frozen=True)
class Workers:
    """Workers of a search.

    Attributes:
        count: Candidates that are measured at the same time.
        cpus: Processors that a worker takes on a cluster; by default the job's threads.
        gpus: GPUs that a worker takes on a cluster, also a part of one.
        memory_gb: Memory that a worker may use; a candidate that needs more fails. None for no limit.
        silence_seconds: After so long without a sign of progress a candidate is given up as hanging: its evaluation
            (from its start), or one step of training. None to wait for ever.
        timeout_seconds: After so long a candidate is given up, whatever it is doing; the training of its student, where
            nobody has trained it, counts. None for no limit.
        retries: How often a candidate is measured again that was lost with its worker.
    """

    count: int = 1
    cpus: float | None = None
    gpus: float = 0.0
    memory_gb: float | None = None
    silence_seconds: float | None = None
    timeout_seconds: float | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        """Refuse numbers that no worker can have.

        Raises:
            JobError: Naming the first of them.
        """
        _require("count", self.count, isinstance(self.count, int) and self.count >= 1, "a whole number of at least 1")
        _require("retries", self.retries, isinstance(self.retries, int) and self.retries >= 0, "0 or more")
        _require("gpus", self.gpus, _is_number(self.gpus) and self.gpus >= 0, "a number of at least 0")
        for name in ("cpus", "memory_gb", "silence_seconds", "timeout_seconds"):
            value = getattr(self, name)
            _require(name, value, value is None or (_is_number(value) and value > 0), "a number above 0, or null")

    @classmethod
    def of(cls, given: Workers | int | dict[str, Any]) -> Workers:
        """From what a call or a job file says: a count, or keys and values.

        Raises:
            JobError: If a key is unknown, or a value is none that workers can have.
        """
        if isinstance(given, Workers):
            return given
        if not isinstance(given, dict):
            return cls(count=given)
        known = [entry.name for entry in fields(cls)]
        for key in given:
            if key not in known:
                raise JobError(f"workers: unknown key {key!r}; {nearest(str(key), known)}")
        return cls(**given)

    @property
    def need_processes(self) -> bool:
        """Whether they are more than the search's own process: one process can neither stop nor confine itself."""
        limits = (self.silence_seconds, self.timeout_seconds, self.memory_gb)
        return self.count > 1 or any(limit is not None for limit in limits)

    def to_json(self) -> dict[str, Any]:
        """As the job file has it."""
        return asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds or isinstance(value, bool):
        raise JobError(f"workers: {name} is {rule}; got {value!r}")
