"""The Pareto front of measured candidates: how much it covers, and which member to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import pandas

from kneepoint.objectives.expressions import Condition
from kneepoint.search.axis import Axis, axes_of, devices_of, quality_of
from kneepoint.search.evaluator import NetworkBuilder
from kneepoint.search.pareto import Matrix, hypervolume, non_dominated
from kneepoint.search.record import Fidelity
from kneepoint.search.within_noise import alike, undominated
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.students import describe
from kneepoint.tasks.errors import InputError, nearest
from kneepoint.tasks.metrics import Score

PICKS = ("knee", "most-accurate", "fastest", "smallest")
MIN_ID_DIGITS = 4


@dataclass(frozen=True)
class Candidate:
    """A measured policy, and the way to build its network.

    Attributes:
        id: How the command line and files refer to it: the policy's id, with the fidelity behind it for baselines,
            which may be the same policies at a lower one.
        policy: What it is.
        scores: By objective name.
        fidelity: How the scores were measured.
        feasible: Whether it meets the job's constraints, and fits a device of the job.
        misfits: Devices of the job that it does not fit.
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
    misfits: frozenset[str] = frozenset()
    baseline: str | None = None
    artifact: str | None = None
    executed: Mapping[str, Score] | None = None
    test: Mapping[str, Score] | None = None
    build: NetworkBuilder | None = field(default=None, compare=False, repr=False)

    @property
    def values(self) -> dict[str, float]:
        """Score values by objective name."""
        return {name: score.value for name, score in self.scores.items()}


class Front(Sequence[Candidate]):
    """Candidates none of which dominates another, best first by the first objective.

    A candidate that does not fit every device of the job is no member; it may be on the front of a device that it fits.

    Args:
        candidates: Any candidates; dominated and non-finite ones are left out.
        axes: The objectives that decide; at least one.
        teacher: Values of the fp32 teacher, for relative conditions.
        within_noise: Whether a candidate stays that others dominate by less than their standard errors can tell; those
            with equal values stay then, too. Otherwise scores decide as they are, and of equals the first stays.
        device: Whose front it is; None for all of the job's.

    Attributes:
        elsewhere: Candidates that do not fit every device, and are on the front of one that they fit.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        axes: Sequence[Axis],
        teacher: Mapping[str, float],
        within_noise: bool = False,
        device: str | None = None,
    ) -> None:
        self.device = device
        self.axes = tuple(axes)
        self.teacher = dict(teacher)
        self.within_noise = within_noise
        fitting = [one for one in candidates if not self._is_misfit(one)]
        table = losses(fitting, axes)
        rows = undominated(table, loss_errors(fitting, axes)) if within_noise else non_dominated(table)
        chosen = [fitting[index] for index in rows]
        self._candidates = sorted(chosen, key=lambda one: (axes[0].scale(one.values[axes[0].name]), one.id))
        self.elsewhere = self._on_some_front(candidates) if device is None and len(fitting) < len(candidates) else []

    def __len__(self) -> int:
        return len(self._candidates)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        return self._candidates[index]

    def __repr__(self) -> str:
        names = ", ".join(axis.name for axis in self.axes)
        return f"<Front of {len(self)} over {names}, hypervolume {self.hypervolume:.4f}>"

    @property
    def hypervolume(self) -> float:
        """Share of the box between ideal and worst that the front dominates, in [0, 1]; larger is better."""
        return hypervolume(losses(self, self.axes))

    def for_device(self, device: str) -> Front:
        """The front over the objectives that concern ``device``: its own, and those of no device.

        Raises:
            InputError: If no objective is about it.
        """
        return self._among(self.everyone, device)

    @property
    def everyone(self) -> list[Candidate]:
        """Its members, and those that are on the front of some device alone."""
        return [*self, *self.elsewhere]

    def _is_misfit(self, candidate: Candidate) -> bool:
        return bool(candidate.misfits) if self.device is None else self.device in candidate.misfits

    def _on_some_front(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that do not fit every device, and are on the front of one."""
        fronts = [self._among(candidates, device) for device in devices_of(self.axes)]
        found = {one.id: one for front in fronts for one in front if one.misfits}
        return list(found.values())

    def _among(self, candidates: Sequence[Candidate], device: str) -> Front:
        return Front(candidates, axes_of(self.axes, device), self.teacher, self.within_noise, device)

    def alike(self) -> dict[str, list[str]]:
        """For each member that has any, the ids of the others that no uncertain objective tells it apart from.

        Two members are told apart by a difference of more than two standard errors; see
        :mod:`kneepoint.search.within_noise`. An objective that is known exactly, such as the size, does not count: it
        says which of two equals to prefer.
        """
        same = alike(losses(self, self.axes), loss_errors(self, self.axes))
        return {
            one.id: [self[int(row)].id for row in np.flatnonzero(same[at])]
            for at, one in enumerate(self)
            if same[at].any()
        }

    def knee(self) -> Candidate:
        """The best compromise: least regret, quality and cost weighing the same.

        The regret is the distance to the front's best in each objective, as a share of the front's range: costs on a
        logarithmic scale, because they are compared by ratio. Kinds of cost weigh the same (latency, size, energy), and
        so do the devices within a kind: a second device does not halve the weight of accuracy. Least regret is the
        minimum Manhattan distance of Chiu, Yen & Juan 2016 with the sides balanced so.

        Raises:
            InputError: If the front is empty.
        """
        self._require_members("it has no knee")
        quality = [name for name, good in zip(self._kinds(), quality_of(self.axes), strict=True) if good]
        columns: dict[str, list[Matrix]] = {}
        for axis, kind in zip(self.axes, self._kinds(), strict=True):
            columns.setdefault(kind, []).append(self._regret(axis, logarithmic=kind not in quality))
        by_kind = {kind: np.mean(regrets, axis=0) for kind, regrets in columns.items()}
        sides = [[regret for kind, regret in by_kind.items() if (kind in quality) == side] for side in (True, False)]
        total = sum(np.mean(side, axis=0) for side in sides if side)
        return self._candidates[int(np.argmin(total))]

    def _kinds(self) -> list[str]:
        return [axis.name.partition("@")[0] for axis in self.axes]

    def _regret(self, axis: Axis, *, logarithmic: bool) -> Matrix:
        """How far each candidate is from the best of ``axis``: 0 for the best, 1 for the worst of the front."""
        values = np.array([candidate.values[axis.name] for candidate in self])
        if logarithmic and (values > 0).all():
            values = np.log(values)
        loss = values if axis.direction == "minimize" else -values
        span = float(np.ptp(loss))
        return np.asarray((loss - loss.min()) / span if span > 0 else np.zeros_like(loss))

    def pick(self, which: str = "knee", where: str | None = None) -> Candidate:
        """One candidate.

        Args:
            which: ``knee``, ``most-accurate``, ``fastest``, ``smallest``, or an id (its first digits, four at least).
            where: A condition such as ``latency_ms@raspberry-pi-4b <= 3 and size_mb <= 1``.

        Raises:
            ObjectiveError: If the condition is malformed.
            InputError: If nothing is called so, or nothing meets the condition.
        """
        front = self.where(where) if where else self
        if which == "knee":
            return front.knee()
        if which in PICKS:
            front._require_members(f"nothing in it is {which}")
            axis = _axis_of_pick(which, self.axes)
            return min(front, key=lambda one: axis.scale(one.values[axis.name]))
        return front._with_id(which)

    def where(self, condition: str) -> Front:
        """The part of the front that meets ``condition``.

        Raises:
            ObjectiveError: If it is malformed.
            InputError: If nothing meets it; the message names the nearest candidate.
        """
        parsed = Condition.parse(condition, [axis.name for axis in self.axes])
        directions = {axis.name: axis.direction for axis in self.axes}
        found = [one for one in self if parsed.holds(one.values, self.teacher, directions)]
        if not found:
            closest = min(
                self, key=lambda one: sum(parsed.violations(one.values, self.teacher, directions)), default=None
            )
            hint = "" if closest is None else f"; nearest: {closest.id} {shown_values(closest, parsed.objectives)}"
            raise InputError(f"no candidate of the front meets {condition!r}{hint}")
        return Front(found, self.axes, self.teacher, self.within_noise, self.device)

    def to_frame(self) -> pandas.DataFrame:
        """One row a candidate: id, fidelity, student, every objective and its standard error."""
        names = [axis.name for axis in self.axes]
        columns = ["id", "fidelity", "student", *(column for name in names for column in (name, f"{name}_error"))]
        return pandas.DataFrame([_row(candidate, names) for candidate in self], columns=columns)

    def _with_id(self, digits: str) -> Candidate:
        matching = [candidate for candidate in self if candidate.id.startswith(digits)]
        exact = [candidate for candidate in matching if candidate.id == digits]
        if exact or (len(matching) == 1 and len(digits) >= MIN_ID_DIGITS):
            return (exact or matching)[0]
        what = "names no candidate"
        if matching:
            short = len(digits) < MIN_ID_DIGITS
            what = f"is shorter than {MIN_ID_DIGITS} digits" if short else "names more than one candidate"
        raise InputError(f"--pick {digits!r} {what}; {nearest(digits, [*PICKS, *(one.id for one in self)])}")

    def _require_members(self, consequence: str) -> None:
        if not self._candidates:
            raise InputError(f"the front is empty, so {consequence}")


def losses(candidates: Sequence[Candidate], axes: Sequence[Axis]) -> Matrix:
    """Shape (candidates, objectives): 0 at the ideal, 1 at the worst useful value."""
    rows = [[axis.scale(candidate.values[axis.name]) for axis in axes] for candidate in candidates]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(axes))


def loss_errors(candidates: Sequence[Candidate], axes: Sequence[Axis]) -> Matrix:
    """Shape (candidates, objectives): one standard error of each loss, 0 where none is known."""
    rows = [[abs(one.scores[axis.name].error or 0.0) / axis.scale.span for axis in axes] for one in candidates]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(axes))


def shown_values(candidate: Candidate, names: Sequence[str]) -> str:
    """Some of a candidate's values, for a message."""
    return "(" + ", ".join(f"{name} = {candidate.values[name]:.4g}" for name in names) + ")"


def _row(candidate: Candidate, names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": candidate.id, "fidelity": candidate.fidelity}
    row["student"] = describe(dict(candidate.policy.student))
    for name in names:
        row[name] = candidate.scores[name].value
        row[f"{name}_error"] = candidate.scores[name].error
    return row


def _axis_of_pick(which: str, axes: Sequence[Axis]) -> Axis:
    wanted = {
        "most-accurate": quality_of(axes),
        "fastest": [axis.name.startswith(("latency_ms@", "measured_latency_ms")) for axis in axes],
        "smallest": [axis.name in ("size_mb", "parameters") for axis in axes],
    }
    for axis, suits in zip(axes, wanted[which], strict=True):
        if suits:
            return axis
    raise InputError(f"--pick {which} needs an objective for it; the run has {', '.join(axis.name for axis in axes)}")
