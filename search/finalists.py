"""From the measured front to the reported one: recovery, export, and the check of every artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kneepoint.deployment.exporting import export_network
from kneepoint.search.climb import Climb
from kneepoint.search.evaluator import NetworkBuilder
from kneepoint.search.front import Candidate, Front
from kneepoint.search.progress import Progress
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


def climbed(candidates: Sequence[Candidate], climb: Climb, trials: Trials, progress: Progress) -> list[Candidate]:
    """Candidates measured at a higher fidelity: those expected to add most to its fronts.

    Args:
        candidates: At the lower fidelity.
        climb: Of those that went up already; takes up the rest.
        trials: Measures.
        progress: Told after every candidate.

    Raises:
        JobFailed: If all of them fail.
        JobError: If none meets the constraints.
    """
    _tell(climb, trials, progress)
    for _ in climb.rest(candidates):
        _tell(climb, trials, progress)
    records = climb.records
    if not records:
        require_feasible(candidates, trials)
        first = (Assignment(one.policy, climb.fidelity) for one in trials.front(candidates)[: climb.count])
        records = list(trials.measured(first))
    require_success(records, trials)
    reached = trials.candidates(records)
    require_feasible(reached, trials)
    return reached


def _tell(climb: Climb, trials: Trials, progress: Progress) -> None:
    progress.failures(trials.log.failed)
    progress.tell(_STAGES[climb.fidelity], len(climb.records), climb.expected)


def checked_front(finalists: Sequence[Candidate], trials: Trials, directory: RunDirectory, progress: Progress) -> Front:
    """The front, within noise, of the finalists whose artifact reaches the simulated score in the runtime.

    One that does not is left out, and those it dominated get their turn.

    Raises:
        JobFailed: If that leaves none; the message ends with the last reason.
    """
    remaining = list(finalists)
    checked: dict[str, Candidate] = {}
    reason = ""
    while due := [one for one in trials.front(remaining, within_noise=True).everyone if one.id not in checked]:
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
