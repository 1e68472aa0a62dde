"""One line of the trial log: what was measured of one policy at one fidelity."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import RunError, SpaceError
from kneepoint.tasks.metrics import Score

Fidelity = Literal["slice1", "slice2", "ptq", "recovered", "full"]
SLICE_FIDELITIES: tuple[Fidelity, ...] = ("slice1", "slice2")
"""Of students that are not trained to their end yet: after the first slice of their steps, and after the second."""
FIDELITIES: tuple[Fidelity, ...] = ("ptq", "recovered", "full")
"""From cheap to dear: calibrated without training, after a short distillation, and after a long one."""


@dataclass(frozen=True)
class Record:
    """The outcome of one evaluation.

    Attributes:
        policy: What was evaluated.
        fidelity: How.
        scores: By objective name; None where the evaluation failed.
        seconds: Wall time it took.
        worker: Who did it.
        error: Why it failed, in one line; None where it did not.
        baseline: The baseline it was evaluated for; None for the search's own.
        parameters: The sampler's parameters, for the search's own proposals.
        weights: SHA-256 of the stored network, where one was stored.
        samples: Of the validation data, where scores come from the first of them alone because those showed enough;
            None for all.
        misfits: Devices of the job that it does not fit, each with what is missing, as a share of what there is.
        ended: Unix time at which the search took it up, by its driver's clock; 0 where nobody noted it.
    """

    policy: Policy
    fidelity: Fidelity
    scores: Mapping[str, Score] | None
    seconds: float
    worker: str
    error: str | None = None
    baseline: str | None = None
    parameters: Mapping[str, str | int] | None = None
    weights: str | None = None
    samples: int | None = None
    misfits: Mapping[str, float] = field(default_factory=dict)
    ended: float = 0.0

    @property
    def id(self) -> str:
        """Unique within a run: the policy's id and the fidelity."""
        return f"{self.policy.id}-{self.fidelity}"

    @property
    def values(self) -> dict[str, float]:
        """Score values by objective name; empty for a failed evaluation."""
        return {name: score.value for name, score in (self.scores or {}).items()}

    def to_line(self) -> str:
        """One line of JSON, without the line break."""
        scores = None if self.scores is None else {name: score.to_json() for name, score in self.scores.items()}
        return json.dumps(
            {
                "id": self.id,
                "policy_id": self.policy.id,
                "policy": self.policy.to_json(),
                "scores": scores,
                "fidelity": self.fidelity,
                "seconds": round(self.seconds, 4),
                "worker": self.worker,
                "error": self.error,
                "baseline": self.baseline,
                "parameters": None if self.parameters is None else dict(self.parameters),
                "weights": self.weights,
                "samples": self.samples,
                "ended": round(self.ended, 3),
                **({"misfits": dict(self.misfits)} if self.misfits else {}),
            },
            allow_nan=False,
        )

    @classmethod
    def from_line(cls, line: str) -> Record:
        """Read what :meth:`to_line` wrote.

        Raises:
            RunError: If the line is no such record.
        """
        try:
            data: dict[str, Any] = json.loads(line)
            scores, chosen = data["scores"], data.get("parameters")
            return cls(
                policy=Policy.from_json(data["policy"]),
                fidelity=as_fidelity(data["fidelity"]),
                scores=None if scores is None else {name: Score.from_json(entry) for name, entry in scores.items()},
                seconds=float(data["seconds"]),
                worker=str(data["worker"]),
                error=data["error"],
                baseline=data["baseline"],
                parameters=None if chosen is None else {sys.intern(name): value for name, value in chosen.items()},
                weights=data.get("weights"),
                samples=data.get("samples"),
                misfits={str(name): float(missing) for name, missing in data.get("misfits", {}).items()},
                ended=float(data.get("ended", 0.0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, SpaceError) as error:
            raise RunError(f"a line of the trial log is a JSON record; got {line[:80]!r} ({error})") from error


def recordable(score: Score) -> Score:
    """``score`` with plain floats, and without an error that is no standard error (not finite, or below 0)."""
    error = None if score.error is None else float(score.error)
    return Score(float(score.value), error if error is not None and math.isfinite(error) and error >= 0 else None)


def non_finite(scores: Mapping[str, Score]) -> dict[str, float]:
    """The values that no front can hold: NaN and infinities, by objective name."""
    return {name: score.value for name, score in scores.items() if not math.isfinite(score.value)}


def as_fidelity(name: str) -> Fidelity:
    """The fidelity called ``name``.

    Raises:
        ValueError: If there is none.
    """
    for fidelity in (*SLICE_FIDELITIES, *FIDELITIES):
        if fidelity == name:
            return fidelity
    raise ValueError(f"fidelity is one of {(*SLICE_FIDELITIES, *FIDELITIES)}, got {name!r}")
