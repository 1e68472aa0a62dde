"""One search, many devices: the front of a finished run on a device that the run did not know.

Given equal arithmetic, accuracy does not depend on the device. So everything measured is priced on the new one, and has
a front there. Nothing is measured, and the task is needed only where the run directory lacks kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kneepoint.hardware_models.device import Device
from kneepoint.objectives.costs import Energy, Latency, OnDevice, PeakMemory
from kneepoint.objectives.expressions import Condition
from kneepoint.objectives.objective import COST_MARGIN, Direction, Scale
from kneepoint.search.axis import Axis
from kneepoint.search.device_prices import DevicePrices, Prices, Say
from kneepoint.search.evaluator import NetworkBuilder
from kneepoint.search.front import Candidate, Front
from kneepoint.search.front_file import ALL_BASELINES, MALFORMED, front_content, malformed, read_candidates, read_front
from kneepoint.search.job import Job
from kneepoint.search.record import FIDELITIES, Fidelity, Record, as_fidelity
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trial_lines import TrialLine, trial_lines
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import InputError
from kneepoint.tasks.metrics import Score

_PRICED: tuple[type[OnDevice], ...] = (Latency, Energy, PeakMemory)
_TEACHER = Policy.build()

Build = Callable[[Record], NetworkBuilder]


@dataclass(frozen=True)
class Repriced:
    """A run on another device.

    Attributes:
        front: Over the objectives that are about no device, and those about the new one.
        content: As ``front.json`` has it, with what was priced under the key ``repriced``.
        notes: What a reader has to know, in sentences.
    """

    front: Front
    content: dict[str, Any]
    notes: tuple[str, ...]


class Repricing:
    """Prices a run on another device.

    Args:
        directory: Of the run.
        device: The new one.
        job: Loads the run's job; asked only where kernels are missing.
        say: Told of work that takes a while.

    Raises:
        RunError: If a file of the run is missing or malformed.
    """

    def __init__(self, directory: RunDirectory, device: Device, job: Callable[[], Job], say: Say | None = None) -> None:
        self.directory = directory
        self.device = device
        self.content = directory.read_front()
        self.own = read_front(self.content)
        self.lines = trial_lines(directory.log_file)
        self._prices = DevicePrices(directory, device, job, say)

    def front(self, fidelity: Fidelity | None = None, build: Build | None = None) -> Repriced:
        """The front of what was measured at one fidelity.

        Args:
            fidelity: By default that of the run's own front: the highest once the search is over.
            build: Makes the way to a candidate's network; without it candidates cannot be exported.

        Raises:
            InputError: If nothing was measured at that fidelity.
            RunError: If kernels are missing that cannot be made again, or the front is malformed.
        """
        try:
            return self._front(fidelity or self._own_fidelity(), build)
        except MALFORMED as error:
            raise malformed(error) from error

    def _front(self, chosen: Fidelity, build: Build | None) -> Repriced:
        lines = self._measured(chosen)
        if not lines:
            raise InputError(f"nothing was measured as {chosen!r}; the run has {self._fidelities()}")
        baselines = self._baselines()
        prices = self._prices.of(self._kinds(), _policies(lines, baselines))
        axes = self._axes(prices)
        teacher = self._teacher(prices)
        values = {name: score.value for name, score in teacher.items()}
        verdict = _Verdict.of(self.content["constraints"], self._directions, values, prices)
        sketches = [verdict.on(_sketch(line, chosen), line.policy_id) for line in lines]
        sketched = Front([one for one in sketches if one.feasible], axes, values, self.own.within_noise)
        members = self._members(sketched, {line.policy_id: line for line in lines}, build)
        front = Front(members, axes, values, self.own.within_noise)
        rated = {name: [verdict.on(one, one.policy.id) for one in group] for name, group in baselines.items()}
        texts = [entry.text for entry in verdict.constraints.comparisons]
        content = front_content(str(self.content["task"]), front, rated, teacher, texts)
        content["repriced"] = self._facts(chosen, sketches, verdict, prices)
        return Repriced(front, content, tuple(content["repriced"]["notes"]))

    def _members(
        self, sketches: Sequence[Candidate], lines: Mapping[str, TrialLine], build: Build | None
    ) -> list[Candidate]:
        """Sketches with their policies, the artifacts that the run's own front has of them, and ways to build them."""
        known = {(one.policy.id, one.fidelity): one for one in self.own.everyone}
        found = []
        for one in sketches:
            record = lines[one.id].record()
            other = known.get((one.id, one.fidelity), one)
            found.append(
                replace(
                    one,
                    policy=record.policy,
                    artifact=other.artifact,
                    executed=other.executed,
                    test=other.test,
                    build=None if build is None else build(record),
                )
            )
        return found

    def _own_fidelity(self) -> Fidelity:
        """The highest among the members of the run's own front."""
        reached = [FIDELITIES.index(one.fidelity) for one in self.own if one.fidelity in FIDELITIES]
        return FIDELITIES[max(reached, default=0)]

    def _fidelities(self) -> str:
        found = {line.fidelity for line in self.lines if line.scores is not None and line.baseline is None}
        return ", ".join(name for name in FIDELITIES if name in found) or "none"

    def _measured(self, fidelity: Fidelity) -> list[TrialLine]:
        """The search's own successes, measured on all samples."""
        found = (line for line in self.lines if line.fidelity == fidelity and line.baseline is None)
        return [line for line in found if line.scores is not None and line.is_whole]

    def _baselines(self) -> dict[str, list[Candidate]]:
        by_id = {one.id: one for one in read_candidates(self.content)}
        listed = {name: entry["ids"] for name, entry in self.content["baselines"].items() if name != ALL_BASELINES}
        return {name: [by_id[one] for one in ids if one in by_id] for name, ids in listed.items()}

    def _kinds(self) -> list[type[OnDevice]]:
        """What is priced: latency, and what else the run has of another device, as far as the new one knows it."""
        prefixes = {axis.name.partition("@")[0] for axis in self.own.axes}
        found = [kind for kind in _PRICED if kind is Latency or kind.prefix in prefixes]
        return [kind for kind in found if kind is not Energy or self.device.power is not None]

    def _axes(self, prices: Prices) -> list[Axis]:
        """Those of no device as the run has them; in place of the others, or behind them, the new device's."""
        made = [self._axis(kind, prices) for kind in self._kinds()]
        axes: list[Axis] = []
        for axis in self.own.axes:
            axes += [axis] if not axis.device else [one for one in made if one not in axes]
        return [*axes, *(one for one in made if one not in axes)]

    def _axis(self, kind: type[OnDevice], prices: Prices) -> Axis:
        name = f"{kind.prefix}@{self.device.name}"
        worst = COST_MARGIN * prices.scores[_TEACHER.id][name].value
        return Axis(name, "minimize", kind.unit, Scale(worst=worst, ideal=0.0))

    def _teacher(self, prices: Prices) -> dict[str, Score]:
        measured = {name: Score.from_json(entry) for name, entry in self.content["teacher"].items()}
        return {**measured, **prices.scores[_TEACHER.id]}

    def _directions(self, names: Sequence[str]) -> dict[str, Direction]:
        """Which way is better; of what is no objective the job alone may say."""
        found = {axis.name: axis.direction for axis in self.own.axes}
        if not set(names) <= found.keys():
            found.update({entry.name: entry.direction for entry in self._prices.job(0).scored})
        return found

    def _facts(
        self, fidelity: Fidelity, candidates: Sequence[Candidate], verdict: _Verdict, prices: Prices
    ) -> dict[str, Any]:
        broken = {one.id: list(map(str, prices.misfits[one.id])) for one in candidates}
        dropped = [axis.name for axis in self.own.axes if axis.device and axis.device != self.device.name]
        facts = {
            "device": self.device.name,
            "digest": self.device.digest,
            "fidelity": fidelity,
            "candidates": len(candidates),
            "feasible": sum(one.feasible for one in candidates),
            "does_not_fit": {key: reasons for key, reasons in broken.items() if reasons},
            "constraints_left_out": list(verdict.left_out),
            "objectives_left_out": dropped,
        }
        return {**facts, "notes": list(self._notes(facts, len(self._measured("ptq"))))}

    def _notes(self, facts: Mapping[str, Any], cheap: int) -> list[str]:
        device, fidelity, count = self.device.name, facts["fidelity"], facts["candidates"]
        notes = [f"priced {count} candidates measured as {fidelity!r} on {device}; nothing was measured anew"]
        if fidelity != "ptq" and cheap > count:
            notes.append(f"{cheap} were measured before they were trained: --fidelity ptq shows their front")
        if stopped := sum(line.fidelity == fidelity and not line.is_whole for line in self.lines):
            notes.append(f"{stopped} more were stopped early, because candidates surely dominated them where they ran")
        if facts["constraints_left_out"]:
            listed = ", ".join(facts["constraints_left_out"])
            notes.append(f"constraints on other devices do not apply: {listed}")
        if misfit := facts["does_not_fit"]:
            key, reasons = next(iter(misfit.items()))
            notes.append(f"{len(misfit)} of {count} do not fit {device}, the first of them {key}: {reasons[0]}")
        if not facts["feasible"]:
            notes.append("the front is empty: no candidate fits and meets the constraints")
        return notes


@dataclass(frozen=True)
class _Verdict:
    """Who may be on the front of a device.

    Attributes:
        constraints: Of the run, as far as they are about no device.
        left_out: The others, as they are written.
        directions: By objective.
        teacher: Values of the teacher.
        prices: On the device.
    """

    constraints: Condition
    left_out: tuple[str, ...]
    directions: Mapping[str, Direction]
    teacher: Mapping[str, float]
    prices: Prices

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        directions: Callable[[Sequence[str]], Mapping[str, Direction]],
        teacher: Mapping[str, float],
        prices: Prices,
    ) -> _Verdict:
        every = Condition.of(texts).comparisons
        known = [*teacher]
        kept = Condition.of([entry.text for entry in every if "@" not in entry.objective], known)
        left_out = tuple(entry.text for entry in every if "@" in entry.objective)
        return cls(kept, left_out, directions(kept.objectives), teacher, prices)

    def on(self, candidate: Candidate, policy_id: str) -> Candidate:
        """The candidate with the prices of its policy, and whether it may be there."""
        scores = {**candidate.scores, **self.prices.scores[policy_id]}
        values = {name: score.value for name, score in scores.items()}
        exceeded = frozenset(one.device for one in self.prices.misfits[policy_id])
        feasible = not exceeded and self.constraints.holds(values, self.teacher, self.directions)
        return replace(candidate, scores=scores, feasible=feasible, misfits=exceeded)


def _sketch(line: TrialLine, fidelity: Fidelity) -> Candidate:
    """A candidate as far as a front has to know it: its policy is read when it is a member."""
    return Candidate(line.policy_id, _TEACHER, line.scores or {}, fidelity)


def _policies(
    lines: Sequence[TrialLine], baselines: Mapping[str, Sequence[Candidate]]
) -> dict[str, Callable[[], Policy]]:
    """The way to every policy that has to be priced, by its id."""
    found: dict[str, Callable[[], Policy]] = {_TEACHER.id: lambda: _TEACHER}
    found.update({one.policy.id: partial(getattr, one, "policy") for group in baselines.values() for one in group})
    found.update({line.policy_id: partial(_policy, line) for line in lines})
    return found


def _policy(line: TrialLine) -> Policy:
    return line.record().policy


def fidelity_named(name: str | None) -> Fidelity | None:
    """The fidelity of that name.

    Raises:
        InputError: If there is none.
    """
    try:
        return None if name is None else as_fidelity(name)
    except ValueError as error:
        raise InputError(str(error)) from error
