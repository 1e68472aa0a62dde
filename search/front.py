"""Pareto fronts of measured candidates: which are not dominated, how much they cover, and which to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import moocore
import numpy as np
import numpy.typing as npt
import pandas

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.objectives.expressions import Condition
from kneepoint.objectives.objective import Scale
from kneepoint.search.record import Fidelity
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import InputError, nearest
from kneepoint.tasks.metrics import Score

Matrix = npt.NDArray[np.float64]
PICKS = ("knee", "most-accurate", "fastest", "smallest")


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
    direction: str
    unit: str
    scale: Scale

    @property
    def device(self) -> str:
        """The device in the name, or an empty string."""
        return self.name.partition("@")[2]


@dataclass(frozen=True)
class Candidate:
    """A measured policy, and the way to build its network.

    Attributes:
        id: How the command line and files refer to it: the policy's id, with the fidelity behind it for baselines,
            which may be the same policies at a lower one.
        policy: What it is.
        scores: By objective name.
        fidelity: How the scores were measured.
        feasible: Whether it meets the job's constraints.
        baseline: Which baseline it is, or None.
        artifact: The exported model, relative to the run directory.
        executed: The task's metric, by its name, as ONNX Runtime reached it on the validation data.
        test: The same as the simulator reached it on the test data, which the search never saw.
        build: Makes the network; None where the run cannot be rebuilt here.
    """

    id: str
    policy: Policy
    scores: Mapping[str, Score]
    fidelity: Fidelity
    feasible: bool = True
    baseline: str | None = None
    artifact: str | None = None
    executed: Mapping[str, Score] | None = None
    test: Mapping[str, Score] | None = None
    build: Callable[[], CompressedNetwork] | None = field(default=None, compare=False, repr=False)

    @property
    def values(self) -> dict[str, float]:
        """Score values by objective name."""
        return {name: score.value for name, score in self.scores.items()}


class Front(Sequence[Candidate]):
    """Candidates none of which dominates another, best first by the first objective.

    Args:
        candidates: Any candidates; dominated and non-finite ones are left out. Of candidates with equal values the first
            stays.
        axes: The objectives that decide.
        teacher: Values of the fp32 teacher, for relative conditions.
    """

    def __init__(self, candidates: Sequence[Candidate], axes: Sequence[Axis], teacher: Mapping[str, float]) -> None:
        self.axes = tuple(axes)
        self.teacher = dict(teacher)
        chosen = [candidates[index] for index in non_dominated(losses(candidates, axes))]
        self._candidates = sorted(chosen, key=lambda candidate: (axes[0].scale(candidate.values[axes[0].name]), candidate.id))

    def __len__(self) -> int:
        return len(self._candidates)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        return self._candidates[index]

    @property
    def hypervolume(self) -> float:
        """Share of the box between ideal and worst that the front dominates, in [0, 1]; larger is better."""
        return hypervolume(losses(self, self.axes))

    def for_device(self, device: str) -> Front:
        """The front over the objectives that concern ``device``: its own, and those of no device."""
        return Front(self, axes_of(self.axes, device), self.teacher)

    def knee(self) -> Candidate:
        """The best compromise: least regret, quality and cost weighing the same.

        Losses are normalized by the front's own range; the regret of a candidate is the mean loss over the objectives to
        maximize plus the mean loss over those to minimize (the minimum Manhattan distance of Chiu, Yen & Juan 2016,
        with the two sides balanced, so that a second device does not halve the weight of accuracy).

        Raises:
            InputError: If the front is empty.
        """
        if not self._candidates:
            raise InputError("the front is empty, so it has no knee")
        table = losses(self, self.axes)
        span = np.ptp(table, axis=0)
        normalized = (table - table.min(axis=0)) / np.where(span > 0, span, 1.0)
        quality = np.array([axis.direction == "maximize" for axis in self.axes])
        regret = sum(normalized[:, side].mean(axis=1) for side in (quality, ~quality) if side.any())
        return self._candidates[int(np.argmin(regret))]

    def pick(self, which: str = "knee", where: str | None = None) -> Candidate:
        """One candidate.

        Args:
            which: ``knee``, ``most-accurate``, ``fastest``, ``smallest``, or an id (its first digits do).
            where: A condition such as ``latency_ms@raspberry-pi-4b <= 3 and size_mb <= 1``.

        Raises:
            InputError: If nothing is called so, or nothing meets the condition.
        """
        front = self.where(where) if where else self
        if which == "knee":
            return front.knee()
        if which in PICKS:
            axis = _axis_of_pick(which, self.axes)
            return min(front, key=lambda candidate: axis.scale(candidate.values[axis.name]))
        matching = [candidate for candidate in front if candidate.id.startswith(which)]
        if len(matching) != 1 or len(which) < 4:
            known = [*PICKS, *(candidate.id for candidate in front)]
            what = "names no candidate" if not matching else "names more than one candidate, or is shorter than 4 digits"
            raise InputError(f"--pick {which!r} {what}; {nearest(which, known)}")
        return matching[0]

    def where(self, condition: str) -> Front:
        """The part of the front that meets ``condition``.

        Raises:
            ObjectiveError: If it is malformed.
            InputError: If nothing meets it; the message names the nearest candidate.
        """
        parsed = Condition.parse(condition, [axis.name for axis in self.axes])
        directions = {axis.name: axis.direction for axis in self.axes}
        found = [c for c in self if parsed.holds(c.values, self.teacher, directions)]
        if not found:
            closest = min(self, key=lambda c: sum(parsed.violations(c.values, self.teacher, directions)), default=None)
            hint = "" if closest is None else f"; nearest: {closest.id} {_text(closest, parsed.objectives)}"
            raise InputError(f"no candidate of the front meets {condition!r}{hint}")
        return Front(found, self.axes, self.teacher)

    def to_frame(self) -> pandas.DataFrame:
        """One row a candidate: id, student, fidelity, every objective and its standard error."""
        rows: list[dict[str, Any]] = []
        for candidate in self:
            row: dict[str, Any] = {"id": candidate.id, "fidelity": candidate.fidelity}
            row["student"] = dict(candidate.policy.student) or "teacher"
            for axis in self.axes:
                row[axis.name] = candidate.scores[axis.name].value
                row[f"{axis.name}_error"] = candidate.scores[axis.name].error
            rows.append(row)
        return pandas.DataFrame(rows)


def axes_of(axes: Sequence[Axis], device: str) -> list[Axis]:
    """The objectives that concern ``device``.

    Raises:
        InputError: If none is about it.
    """
    devices = sorted({axis.device for axis in axes if axis.device})
    if device not in devices:
        raise InputError(f"no objective of the run is about device {device!r}; {nearest(device, devices)}")
    return [axis for axis in axes if axis.device in ("", device)]


def losses(candidates: Sequence[Candidate], axes: Sequence[Axis]) -> Matrix:
    """(candidates, objectives) losses: 0 at the ideal, 1 at the worst useful value."""
    rows = [[axis.scale(candidate.values[axis.name]) for axis in axes] for candidate in candidates]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(axes))


def non_dominated(table: Matrix) -> list[int]:
    """Rows that no other row dominates, all losses minimized, in order; non-finite rows never are.

    Of equal rows the first is kept.
    """
    finite = np.flatnonzero(np.isfinite(table).all(axis=1))
    if len(finite) == 0:
        return []
    kept = moocore.is_nondominated(table[finite], keep_weakly=False)
    return [int(row) for row in finite[kept]]


def hypervolume(table: Matrix) -> float:
    """Volume dominated by the rows of ``table`` within the unit box, all losses minimized.

    Rows that do not improve on 1 in every objective, and non-finite rows, add nothing.
    """
    inside = table[np.isfinite(table).all(axis=1) & (table < 1.0).all(axis=1)] if len(table) else table
    if len(inside) == 0:
        return 0.0
    return float(moocore.hypervolume(np.maximum(inside, 0.0), ref=np.ones(table.shape[1])))


def contributions(table: Matrix) -> Matrix:
    """What each row alone adds to the hypervolume, in the unit box."""
    whole = hypervolume(table)
    rest = [whole - hypervolume(np.delete(table, row, axis=0)) for row in range(len(table))]
    return np.array(rest, dtype=np.float64)


def largest_contributors(candidates: Sequence[Candidate], axes: Sequence[Axis], count: int) -> list[Candidate]:
    """The ``count`` candidates that together cover most: the one that adds least is left out until few enough stay."""
    remaining = list(candidates)
    while len(remaining) > count:
        added = contributions(losses(remaining, axes))
        remaining.pop(int(np.argmin(added)))
    return remaining


def _axis_of_pick(which: str, axes: Sequence[Axis]) -> Axis:
    def matches(axis: Axis) -> bool:
        if which == "most-accurate":
            return axis.direction == "maximize"
        return axis.name.startswith("latency_ms@") if which == "fastest" else axis.name in ("size_mb", "parameters")

    for axis in axes:
        if matches(axis):
            return axis
    raise InputError(f"--pick {which} needs an objective for it; the run has {', '.join(axis.name for axis in axes)}")


def _text(candidate: Candidate, names: Sequence[str]) -> str:
    return "(" + ", ".join(f"{name} = {candidate.values[name]:.4g}" for name in names) + ")"
