"""From the measured front to the reported one: recovery, export, and the check of every artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kneepoint.deployment.exporting import export_network
from kneepoint.search.evaluator import NetworkBuilder
from kneepoint.search.front import Candidate, Front
from kneepoint.search.goals import fronts_of, has_hidden_limits, limits_of
from kneepoint.search.progress import Progress
from kneepoint.search.promotion import Promotion
from kneepoint.search.record import Fidelity, Record
from kneepoint.search.refusals import require_feasible, require_success
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trials import Trials
from kneepoint.search.workers.assignment import Assignment
from kneepoint.tasks.errors import JobFailed
from kneepoint.tasks.metrics import Score

FINALISTS = 12
"""Candidates that recover and meet the constraints then, at most."""
TRAINED = 6
"""The same of those that are trained to their end, where the job asks for it."""
_STAGES: Mapping[Fidelity, str] = {"recovered": "recovering finalists", "full": "training finalists to their end"}


def climbed(
    candidates: Sequence[Candidate], fidelity: Fidelity, count: int, trials: Trials, progress: Progress
) -> list[Candidate]:
    """Candidates measured at a higher ``fidelity``: those expected to add most to its fronts.

    ``count`` of them that meet the constraints, but half as many again that do not at most.

    Raises:
        JobFailed: If all of them fail.
        JobError: If none meets the constraints.
    """
    climb = Climb(_promotion(candidates, trials), fidelity, count, trials, progress)
    records = climb.records
    if not records:
        require_feasible(candidates, trials)
        first = (Assignment(one.policy, fidelity) for one in trials.front(candidates)[:count])
        records = list(trials.measured(first))
    require_success(records, trials)
    reached = trials.candidates(records)
    require_feasible(reached, trials)
    return reached


class Climb:
    """Candidates on their way to a higher fidelity: as many at a time as there are workers.

    Args:
        promotion: Knows who is next.
        fidelity: To which.
        count: How many that meet the constraints.
        trials: Measures.
        progress: Told after every candidate.

    Attributes:
        records: Of those that climbed, in the order they did; those of an earlier process first.
    """

    def __init__(
        self, promotion: Promotion, fidelity: Fidelity, count: int, trials: Trials, progress: Progress
    ) -> None:
        self._promotion = promotion
        self._fidelity = fidelity
        self._count = count
        self._trials = trials
        self._progress = progress
        known = {one.policy.id for one in promotion.waiting}
        self.records = [
            record
            for record in trials.log.records
            if record.fidelity == fidelity and record.baseline is None and record.policy.id in known
        ]
        self._run()

    def _run(self) -> None:
        dispatcher, begun = self._trials.dispatcher, list[str]()
        while True:
            self._tell()
            while dispatcher.room and (found := self._next(begun)) is not None:
                begun.append(found.policy.id)
                dispatcher.start(Assignment(found.policy, self._fidelity))
            if not begun:
                break
            for record in dispatcher.finished():
                if record.fidelity == self._fidelity:
                    self.records.append(record)
                    begun = [one for one in begun if one != record.policy.id]

    def _next(self, begun: Sequence[str]) -> Candidate | None:
        """Who climbs beside those that have begun to; None where enough do, or nobody is expected to add anything."""
        reached = self._trials.candidates(self.records)
        at_most = len(self.records) + len(begun) >= self._count + self._count // 2
        if at_most or sum(one.feasible for one in reached) + len(begun) >= self._count:
            return None
        return self._promotion.next(reached, [*(record.policy.id for record in self.records), *begun])

    def _tell(self) -> None:
        missed = sum(not one.feasible for one in self._trials.candidates(self.records))
        self._progress.failures(self._trials.log.failed)
        self._progress.tell(_STAGES[self._fidelity], len(self.records), max(self._count + missed, len(self.records)))


def _promotion(candidates: Sequence[Candidate], trials: Trials) -> Promotion:
    return Promotion(
        waiting=candidates,
        axes=trials.axes,
        repaired=[not entry.predicted for entry in trials.job.objectives],
        fronts=fronts_of(trials.axes),
        limits=limits_of(trials),
        hidden=has_hidden_limits(trials),
        seed=trials.job.seed,
    )


def checked_front(finalists: Sequence[Candidate], trials: Trials, directory: RunDirectory, progress: Progress) -> Front:
    """The front, within noise, of the finalists whose artifact reaches the simulated score in the runtime.

    One that does not is left out, and those it dominated get their turn.

    Raises:
        JobFailed: If that leaves none; the message ends with the last reason.
    """
    remaining = list(finalists)
    checked: dict[str, Candidate] = {}
    reason = ""
    while due := [one for one in trials.front(remaining, within_noise=True) if one.id not in checked]:
        progress.tell("exporting and checking", len(checked), len(checked) + len(due))
        try:
            checked[due[0].id] = exported(due[0], trials, directory)
        except JobFailed as failure:
            reason = str(failure)
            remaining.remove(due[0])
            progress.tell(f"left out {due[0].id}: {reason}", len(checked), len(checked) + len(due))
    if not checked:
        raise JobFailed(f"none of the {len(finalists)} finalists became an artifact; the last: {reason}")
    return trials.front([checked[one.id] for one in remaining if one.id in checked], within_noise=True)


def exported(candidate: Candidate, trials: Trials, directory: RunDirectory) -> Candidate:
    """``candidate`` with its artifact, executed score and test score; an earlier export is read back.

    Raises:
        JobFailed: If the network cannot be exported, or the runtime does not reach the simulated score.
    """
    record = trials.log.find(candidate.policy.id, candidate.fidelity)
    if record is None or record.weights is None:
        raise JobFailed(f"candidate {candidate.id} has no stored network, and only what is stored is exported")
    if _manifest(directory.artifacts, record.weights) is None:
        _export(candidate, record, trials, directory.artifacts)
    content = _manifest(directory.artifacts, record.weights)
    if content is None:
        raise JobFailed(f"the export of candidate {candidate.id} left no whole manifest in {directory.artifacts}")
    metric = trials.job.task.metric.name
    return replace(
        candidate,
        artifact=f"{directory.artifacts.name}/{record.weights}.onnx",
        executed={metric: Score.from_json(content["executed"])},
        test={metric: Score.from_json(content["test"])} if content["test"] else None,
    )


def _export(candidate: Candidate, record: Record, trials: Trials, folder: Path) -> None:
    task = trials.job.task
    network = NetworkBuilder(trials.evaluator, record)()
    test = None if task.test is None else task.metric.score(*task.predict(network.module, split="test")).to_json()
    extra = {"test": test, "scores": {name: score.to_json() for name, score in candidate.scores.items()}}
    export_network(network, task, folder, file_name=f"{record.weights}.onnx", extra=extra)


def _manifest(folder: Path, weights: str) -> dict[str, Any] | None:
    """What an earlier export wrote last, if it is whole."""
    path = folder / f"{weights}.json"
    if not path.exists() or not (folder / f"{weights}.onnx").exists():
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None
    return content if isinstance(content, dict) and {"executed", "test"} <= content.keys() else None
