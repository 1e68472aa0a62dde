"""What a worker is asked to measure, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kneepoint.search.racing import Race
from kneepoint.search.record import Fidelity, Record
from kneepoint.spaces.joint_space import Choice
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import KneepointError


@dataclass(frozen=True, eq=False)
class Assignment:
    """One measurement.

    Attributes:
        policy: What to measure.
        fidelity: How.
        baseline: The baseline it is for, if any.
        parameters: The sampler's parameters, if any.
        race: What it has to beat; None to see all samples.
    """

    policy: Policy
    fidelity: Fidelity
    baseline: str | None = None
    parameters: dict[str, Choice] | None = None
    race: Race | None = None

    @property
    def id(self) -> str:
        """That of the record it becomes."""
        return f"{self.policy.id}-{self.fidelity}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """How an assignment ended: exactly one of ``record``, ``lost`` and ``error`` is there.

    Attributes:
        assignment: Which.
        record: Of a measurement, also of one that failed.
        lost: Why the worker was lost with it, in one line: nobody knows what the candidate would have scored.
        error: What is wrong with the job, rather than with the candidate.
        files: What the measurement stored, by path within the run directory, where the worker writes to another one.
    """

    assignment: Assignment
    record: Record | None = None
    lost: str | None = None
    error: KneepointError | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
