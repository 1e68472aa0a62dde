"""One search, many devices: the front of a finished run on a device that the run did not know.

Given equal arithmetic, accuracy does not depend on the device. So everything measured is priced on the new one, and has
a front there. Nothing is measured, and the task is needed only where the run directory lacks kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.limits import Misfit, misfits
from kneepoint.hardware_models.many_workloads import arena_rules, cost_of_many
from kneepoint.objectives.costs import Energy, Latency, OnDevice, PeakMemory
from kneepoint.objectives.expressions import Condition
from kneepoint.objectives.objective import COST_MARGIN, Direction, Scale
from kneepoint.objectives.view import model_of
from kneepoint.search.axis import Axis
from kneepoint.search.evaluator import NetworkBuilder
from kneepoint.search.front import Candidate, Front
from kneepoint.search.front_file import ALL_BASELINES, MALFORMED, front_content, malformed, read_candidates, read_front
from kneepoint.search.job import Job
from kneepoint.search.record import FIDELITIES, Fidelity, Record, as_fidelity
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.stored_workloads import StoredWorkloads, lowered
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import InputError, KneepointError, RunError
from kneepoint.tasks.metrics import Score

_PRICED: tuple[type[OnDevice], ...] = (Latency, Energy, PeakMemory)
_TEACHER = Policy.build()

Say = Callable[[str], None]
Build = Callable[[Record], NetworkBuilder]


@dataclass(frozen=True)
class Prices:
    """What policies cost on a device.

    Attributes:
        scores: By policy id, of every objective that is about the device.
        misfits: By policy id, the limits of the device that it exceeds; those that fit have none.
    """

    scores: Mapping[str, Mapping[str, Score]]
    misfits: Mapping[str, tuple[Misfit, ...]]


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
        self._load_job = job
        self._say = say or _say_nothing
        self.content = directory.read_front()
        self.own = read_front(self.content)
        self.records = directory.log().records
        self._stored = StoredWorkloads(directory)

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
        records = self._measured(chosen)
        if not records:
            raise InputError(f"nothing was measured as {chosen!r}; the run has {self._fidelities()}")
        baselines = self._baselines()
        policies = [record.policy for record in records]
        policies += [one.policy for group in baselines.values() for one in group]
        prices = self._prices({policy.id: policy for policy in (_TEACHER, *policies)})
        axes = self._axes(prices)
        teacher = self._teacher(prices)
        values = {name: score.value for name, score in teacher.items()}
        verdict = _Verdict.of(self.content["constraints"], self._directions, values, prices)
        known = {(one.policy.id, one.fidelity): one for one in self.own}
        candidates = [
            verdict.on(_candidate(record, known.get((record.policy.id, record.fidelity)), build)) for record in records
        ]
        front = Front([one for one in candidates if one.feasible], axes, values, self.own.within_noise)
        rated = {name: [verdict.on(one) for one in group] for name, group in baselines.items()}
        texts = [entry.text for entry in verdict.constraints.comparisons]
        content = front_content(str(self.content["task"]), front, rated, teacher, texts)
        content["repriced"] = self._facts(chosen, candidates, verdict, prices)
        return Repriced(front, content, tuple(content["repriced"]["notes"]))

    def _own_fidelity(self) -> Fidelity:
        """The highest among the members of the run's own front."""
        reached = [FIDELITIES.index(one.fidelity) for one in self.own if one.fidelity in FIDELITIES]
        return FIDELITIES[max(reached, default=0)]

    def _fidelities(self) -> str:
        found = {record.fidelity for record in self.records if record.scores is not None and record.baseline is None}
        return ", ".join(name for name in FIDELITIES if name in found) or "none"

    def _measured(self, fidelity: Fidelity) -> list[Record]:
        """The search's own successes, measured on all samples."""
        return [
            record
            for record in self.records
            if record.fidelity == fidelity
            and record.scores is not None
            and record.baseline is None
            and record.samples is None
        ]

    def _baselines(self) -> dict[str, list[Candidate]]:
        by_id = {one.id: one for one in read_candidates(self.content)}
        listed = {name: entry["ids"] for name, entry in self.content["baselines"].items() if name != ALL_BASELINES}
        return {name: [by_id[one] for one in ids if one in by_id] for name, ids in listed.items()}

    def _kinds(self) -> list[type[OnDevice]]:
        """What is priced: latency, and what else the run has of another device, as far as the new one knows it."""
        prefixes = {axis.name.partition("@")[0] for axis in self.own.axes}
        found = [kind for kind in _PRICED if kind is Latency or kind.prefix in prefixes]
        return [kind for kind in found if kind is not Energy or self.device.power is not None]

    def _prices(self, policies: Mapping[str, Policy]) -> Prices:
        file = self._stored.file(self.device.fusion, [arena_rules(self.device.memory)])
        missing = {key: policy for key, policy in policies.items() if key not in file}
        if missing:
            self._make(missing, file.damaged)
        keys = list(policies)
        costs = cost_of_many(model_of(self.device), file.workloads(keys))
        ratio = costs.latency_ms_error / costs.latency_ms
        energy = costs.energy_mj if costs.energy_mj is not None else np.full(len(keys), np.nan)
        columns = {
            Latency: (costs.latency_ms, costs.latency_ms_error),
            Energy: (energy, energy * ratio),
            PeakMemory: (costs.peak_memory_bytes / 1e6, None),
        }
        named = {f"{kind.prefix}@{self.device.name}": columns[kind] for kind in self._kinds()}
        scores = {
            key: {
                name: Score(float(values[row]), None if errors is None else float(errors[row]))
                for name, (values, errors) in named.items()
            }
            for row, key in enumerate(keys)
        }
        sizes = zip(keys, costs.storage_bytes.tolist(), costs.peak_memory_bytes.tolist(), strict=True)
        return Prices(scores, {key: misfits(self.device, stored, peak) for key, stored, peak in sizes})

    def _make(self, missing: Mapping[str, Policy], damaged: str | None) -> None:
        """Lower policies whose kernels are not in the run directory, and keep them there."""
        why = f" ({self._stored.folder.name}/ is damaged: {damaged})" if damaged else ""
        self._say(f"the run directory lacks the kernels of {len(missing)} policies{why}: loading the task to trace it")
        job = self._job(len(missing))
        rules = self._stored.file(self.device.fusion).rules
        made = {key: lowered(job.space, policy, [rules])[rules] for key, policy in missing.items()}
        try:
            self._stored.keep(rules, made)
        except OSError as error:
            raise RunError(
                f"cannot write {self._stored.folder}: {error.strerror}; make room, or copy the run to where you may "
                "write"
            ) from error

    def _job(self, count: int) -> Job:
        try:
            job = self._load_job()
        except KneepointError as error:
            raise RunError(
                f"{self.device.name} needs the kernels of {count} policies that {self._stored.folder} does not hold, "
                f"and the task that they could be made from cannot be loaded: {error}"
            ) from error
        saved = self.directory.read_job().get("fingerprint")
        if job.task.fingerprint() != saved:
            raise RunError(
                f"the task of {self.directory.path} is another now (its teacher or validation data changed), so the "
                "kernels of its policies cannot be made again; bring back the task as it was"
            )
        return job

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
            found.update({entry.name: entry.direction for entry in self._job(0).scored})
        return found

    def _facts(
        self, fidelity: Fidelity, candidates: Sequence[Candidate], verdict: _Verdict, prices: Prices
    ) -> dict[str, Any]:
        broken = {one.policy.id: list(map(str, prices.misfits[one.policy.id])) for one in candidates}
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

    def on(self, candidate: Candidate) -> Candidate:
        """The candidate with its prices, and whether it may be there."""
        scores = {**candidate.scores, **self.prices.scores[candidate.policy.id]}
        values = {name: score.value for name, score in scores.items()}
        fits = not self.prices.misfits[candidate.policy.id]
        feasible = fits and self.constraints.holds(values, self.teacher, self.directions)
        return replace(candidate, scores=scores, feasible=feasible, misfits=frozenset())


def _candidate(record: Record, known: Candidate | None, build: Build | None) -> Candidate:
    """A record as a candidate, with the artifact that the run's own front has of it."""
    found = known or Candidate(record.policy.id, record.policy, record.scores or {}, record.fidelity)
    return found if build is None else replace(found, build=build(record))


def _say_nothing(line: str) -> None:
    del line


def fidelity_named(name: str | None) -> Fidelity | None:
    """The fidelity of that name.

    Raises:
        InputError: If there is none.
    """
    try:
        return None if name is None else as_fidelity(name)
    except ValueError as error:
        raise InputError(str(error)) from error
