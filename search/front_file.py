"""``front.json``: a run's fronts, baselines and reference, in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kneepoint.objectives.objective import Scale
from kneepoint.search.axis import Axis, devices_of
from kneepoint.search.front import Candidate, Front, losses
from kneepoint.search.pareto import hypervolume
from kneepoint.search.record import as_fidelity
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import RunError, SpaceError
from kneepoint.tasks.metrics import Score

ALL_BASELINES = "all baselines"
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, SpaceError)


def front_content(
    task: str,
    front: Front,
    baselines: Mapping[str, Sequence[Candidate]],
    teacher: Mapping[str, Score],
    constraints: Sequence[str],
) -> dict[str, Any]:
    """The content of ``front.json``.

    Args:
        task: Its name.
        front: Over all objectives.
        baselines: Candidates of each baseline, by its name.
        teacher: Scores of the fp32 teacher.
        constraints: As the user wrote them.
    """
    axes = front.axes
    fronts = {"all": front, **{device: front.for_device(device) for device in devices_of(axes)}}
    everything = {candidate.id: candidate for group in baselines.values() for candidate in group}
    everything.update({candidate.id: candidate for candidate in front.everyone})
    return {
        "schema": "kneepoint.front/1",
        "task": task,
        "objectives": [{"name": axis.name, "direction": axis.direction, "unit": axis.unit} for axis in axes],
        "reference": {axis.name: {"worst": axis.scale.worst, "ideal": axis.scale.ideal} for axis in axes},
        "hypervolume": front.hypervolume,
        "fronts": {name: [candidate.id for candidate in one] for name, one in fronts.items()},
        "within_noise": front.within_noise,
        "alike": {name: one.alike() for name, one in fronts.items()},
        "knee": front.knee().id if len(front) else None,
        "constraints": list(constraints),
        "baselines": _baselines(baselines, axes),
        "teacher": {name: score.to_json() for name, score in teacher.items()},
        "candidates": [_candidate(candidate) for candidate in everything.values()],
    }


def read_front(content: Mapping[str, Any]) -> Front:
    """The front over all objectives, from ``front.json``.

    Raises:
        RunError: If the content is malformed.
    """
    try:
        reference = content["reference"]
        axes = [
            Axis(entry["name"], entry["direction"], entry["unit"], Scale(**reference[entry["name"]]))
            for entry in content["objectives"]
        ]
        members = {*content["fronts"]["all"], *(one for ids in content["fronts"].values() for one in ids)}
        candidates = [_read_candidate(entry) for entry in content["candidates"] if entry["id"] in members]
        teacher = {name: float(score["value"]) for name, score in content["teacher"].items()}
        return Front(candidates, axes, teacher, bool(content["within_noise"]))
    except MALFORMED as error:
        raise malformed(error) from error


def read_candidates(content: Mapping[str, Any]) -> list[Candidate]:
    """All candidates of ``front.json``, baselines among them.

    Raises:
        RunError: If the content is malformed.
    """
    try:
        return [_read_candidate(entry) for entry in content["candidates"]]
    except MALFORMED as error:
        raise malformed(error) from error


def device_front(front: Front, device: str | None) -> Front:
    """The front of a device, or the whole one.

    Raises:
        InputError: If no objective of the run is about the device.
    """
    return front if device is None else front.for_device(device)


def malformed(error: BaseException) -> RunError:
    """What to say where reading a front's content raised one of ``MALFORMED``."""
    return RunError(
        f"front.json is malformed ({type(error).__name__}: {error}); `kneepoint resume DIR` writes it again"
    )


def _baselines(baselines: Mapping[str, Sequence[Candidate]], axes: Sequence[Axis]) -> dict[str, Any]:
    entries = {name: _baseline(group, axes) for name, group in baselines.items()}
    union = [candidate for group in baselines.values() for candidate in group]
    return {**entries, ALL_BASELINES: _baseline(union, axes)} if entries else {}


def _baseline(group: Sequence[Candidate], axes: Sequence[Axis]) -> dict[str, Any]:
    ids = list(dict.fromkeys(candidate.id for candidate in group))
    return {"hypervolume": hypervolume(losses(group, axes)), "ids": ids}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "policy_id": candidate.policy.id,
        "policy": candidate.policy.to_json(),
        "scores": _scores(candidate.scores),
        "fidelity": candidate.fidelity,
        "baseline": candidate.baseline,
        "feasible": candidate.feasible,
        "misfits": sorted(candidate.misfits),
        "artifact": candidate.artifact,
        "executed": _scores(candidate.executed),
        "test": _scores(candidate.test),
    }


def _read_candidate(entry: Mapping[str, Any]) -> Candidate:
    return Candidate(
        id=str(entry["id"]),
        policy=Policy.from_json(entry["policy"]),
        scores={name: Score.from_json(score) for name, score in entry["scores"].items()},
        fidelity=as_fidelity(entry["fidelity"]),
        feasible=bool(entry["feasible"]),
        misfits=frozenset(map(str, entry.get("misfits", ()))),
        baseline=entry["baseline"],
        artifact=entry["artifact"],
        executed=_read_scores(entry.get("executed")),
        test=_read_scores(entry.get("test")),
    )


def _scores(scores: Mapping[str, Score] | None) -> dict[str, Any] | None:
    return None if scores is None else {name: score.to_json() for name, score in scores.items()}


def _read_scores(entry: Mapping[str, Any] | None) -> dict[str, Score] | None:
    return None if entry is None else {name: Score.from_json(score) for name, score in entry.items()}
