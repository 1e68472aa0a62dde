"""A run directory, read and checked: what every view of a run is drawn from.

Nothing here trusts the files: they may come from another machine or another person. Values are checked when they are
read, and names are passed on as they stand for the views to escape.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kneepoint.spaces.policy import BLOCK
from kneepoint.tasks.errors import RunError, nearest

SCHEMA = "kneepoint.front/1"
ALL = "all"
ALL_BASELINES = "all baselines"
UNTOUCHED_BITS = 32

_COST_NAME = re.compile(r"@|^size_|^peak_memory_")
_Entry = TypeVar("_Entry", bound="Entry")


class Entry(BaseModel):
    """The base of everything read from a run: frozen, strictly typed, finite numbers; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class ScoreEntry(Entry):
    """One score.

    Attributes:
        value: The value, in the unit of its objective.
        error: One standard error in the same unit; None where it is unknown.
    """

    value: float
    error: Annotated[float, Field(ge=0)] | None = None


Scores = dict[str, ScoreEntry]


class LayerEntry(Entry):
    """How one layer computes: the bits of its weights, and of its activations (None for float)."""

    weight_bits: Annotated[int, Field(ge=1, le=64)]
    activation_bits: Annotated[int, Field(ge=1, le=64)] | None = None


class PolicyEntry(Entry):
    """What one candidate is; layers and groups that are not named are untouched.

    Attributes:
        student: ``"teacher"``, or the axes of a student architecture.
        keep: Kept fraction by channel group, and 0 for ``block:NAME`` where a residual block is left out.
        layers: How each touched layer computes.
    """

    student: Literal["teacher"] | dict[str, int | float | str]
    keep: dict[str, Annotated[float, Field(ge=0, le=1)]]
    layers: dict[str, LayerEntry]

    @property
    def architecture(self) -> str:
        """The student, and the residual blocks it lacks."""
        gone = [name.removeprefix(BLOCK) for name in self.keep if name.startswith(BLOCK)]
        return f"{self.student_text} without {', '.join(gone)}" if gone else self.student_text

    @cached_property
    def student_text(self) -> str:
        """The student in one line: ``teacher``, or its axes as ``depth=2 width=0.5``."""
        if self.student == "teacher":
            return "teacher"
        return " ".join(f"{axis}={value}" for axis, value in sorted(self.student.items())) or "student"


class TrialEntry(Entry):
    """One line of ``trials.jsonl``.

    Attributes:
        scores: The scores by objective; None for a trial that failed.
        fidelity: How it was measured: ``proxy``, ``ptq``, ``recovered`` or ``full``.
        seconds: How long it took.
        error: Why it failed; None for one that did not.
        baseline: The baseline it belongs to; None for a trial of the search.
        parameters: The choice of every parameter of the sampler; None for what it did not propose.
        samples: Of the validation data, where the trial was stopped after the first of them; None for all.
    """

    id: str
    policy_id: str
    policy: PolicyEntry
    scores: Scores | None
    fidelity: str
    seconds: float
    worker: str = ""
    error: str | None = None
    baseline: str | None = None
    parameters: dict[str, int | str] | None = None
    samples: Annotated[int, Field(ge=1)] | None = None

    @property
    def failed(self) -> bool:
        """Whether the trial ended without scores."""
        return self.scores is None or self.error is not None


class CandidateEntry(Entry):
    """A member of a front, or a baseline, as ``front.json`` holds it.

    Attributes:
        scores: The scores by objective, of the fidelity named beside them.
        baseline: The baseline it belongs to; None for a candidate of the search.
        feasible: Whether it meets the constraints of the job.
        misfits: Devices of the job that it does not fit.
        artifact: The path of its exported network inside the run directory, where there is one.
        test: Scores on the test split, which the search never saw.
    """

    id: str
    policy_id: str
    policy: PolicyEntry
    scores: Scores
    fidelity: str
    baseline: str | None = None
    feasible: bool = True
    misfits: list[str] = []
    artifact: str | None = None
    test: Scores | None = None


class ObjectiveEntry(Entry):
    """What candidates are scored on: its name, which way is better, and its unit where it has one."""

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str | None = None

    @property
    def device(self) -> str | None:
        """The device in the name (``latency_ms@DEVICE``); None for an objective that does not depend on one."""
        return self.name.partition("@")[2] or None

    @property
    def sign(self) -> int:
        """1 where larger is better, -1 where smaller is."""
        return 1 if self.direction == "maximize" else -1


class ReferenceEntry(Entry):
    """The two values that scale an objective: losses are 1 at ``worst`` and 0 at ``ideal``."""

    worst: float
    ideal: float


class BaselineEntry(Entry):
    """A set of baseline candidates and the hypervolume of it."""

    hypervolume: float
    ids: list[str]


class FrontFile(Entry):
    """The whole of ``front.json``; its references to objectives and candidates are checked.

    Attributes:
        fronts: Ids of the members, by device and over all objectives.
        alike: By front, for each member that has any, those that no uncertain objective tells it apart from.
    """

    task: str
    objectives: Annotated[list[ObjectiveEntry], Field(min_length=1)]
    reference: dict[str, ReferenceEntry]
    hypervolume: float
    fronts: dict[str, list[str]]
    alike: dict[str, dict[str, list[str]]] = {}
    knee: str | None = None
    constraints: list[str] = []
    baselines: dict[str, BaselineEntry] = {}
    teacher: Scores = {}
    candidates: list[CandidateEntry]

    @model_validator(mode="after")
    def _refers_to_what_exists(self) -> FrontFile:
        _check_objectives(self)
        _check_candidates(self)
        return self


def _check_objectives(front: FrontFile) -> None:
    names = [objective.name for objective in front.objectives]
    if len(set(names)) != len(names):
        raise ValueError(f"objectives have distinct names; got {names}")
    for objective in front.objectives:
        entry = front.reference.get(objective.name)
        if entry is None:
            raise ValueError(f"every objective has a reference; {objective.name!r} has none")
        if objective.sign * (entry.ideal - entry.worst) <= 0:
            raise ValueError(
                f"the ideal of {objective.name!r} is better than its worst ({objective.direction}); "
                f"got worst={entry.worst}, ideal={entry.ideal}"
            )


def _check_candidates(front: FrontFile) -> None:
    ids = [candidate.id for candidate in front.candidates]
    if len(set(ids)) != len(ids):
        raise ValueError("candidates have distinct ids")
    listed = [*front.fronts.values(), *(baseline.ids for baseline in front.baselines.values())]
    listed += [[one, *others] for groups in front.alike.values() for one, others in groups.items()]
    missing = {name for names in listed for name in names} | ({front.knee} if front.knee is not None else set())
    if missing := missing - set(ids):
        raise ValueError(f"fronts, baselines, the knee and what is alike name candidates; {min(missing)!r} is not one")
    if ALL not in front.fronts:
        raise ValueError(f"fronts has the key {ALL!r}; got {sorted(front.fronts)}")
    for candidate in front.candidates:
        for objective in front.objectives:
            if objective.name not in candidate.scores:
                raise ValueError(
                    f"a candidate has a score for every objective; {candidate.id!r} lacks {objective.name!r}"
                )


@dataclass(frozen=True)
class RunView:
    """What the files of a run directory say.

    Attributes:
        directory: The run directory.
        front: ``front.json``.
        trials: The records of ``trials.jsonl`` in the order in which they ended.
        job: ``job.yaml`` as a mapping.
        job_text: ``job.yaml`` as it is written.
        sensitivities: By parameter and choice how far each alone moves the teacher's outputs, from
            ``sensitivities.json``; empty where the sampler asked for none.
    """

    directory: Path
    front: FrontFile
    trials: tuple[TrialEntry, ...]
    job: Mapping[str, object]
    job_text: str
    sensitivities: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> RunView:
        """Reads ``front.json``, ``trials.jsonl`` and ``job.yaml`` of a run directory.

        A last line of ``trials.jsonl`` that was torn by an interruption is ignored.

        Raises:
            RunError: If the directory or a file is missing, or a file is malformed.
        """
        path = Path(directory)
        if not path.is_dir():
            raise RunError(
                f"a run directory is a folder that kneepoint search wrote; {str(path)!r} is none: check the path"
            )
        job_text = _text(path / "job.yaml")
        return cls(
            path, _read_front(path), _read_trials(path), _parse_job(path, job_text), job_text, _read_sensitivities(path)
        )

    def with_front(self, content: Mapping[str, object]) -> RunView:
        """The same run with another front, which is checked as the file's own is.

        Raises:
            RunError: If it is malformed.
        """
        front = _validated(FrontFile, json.dumps(content).encode(), "the front", "write the run's own again")
        return replace(self, front=front)

    @property
    def objectives(self) -> Sequence[ObjectiveEntry]:
        """The objectives, in the order of the job."""
        return self.front.objectives

    @cached_property
    def quality(self) -> ObjectiveEntry:
        """The objective that costs are weighed against.

        ``accuracy`` where there is one, else the first that is maximized, else the first that is no cost by its name.
        """
        tests: list[Callable[[ObjectiveEntry], bool]] = [
            lambda objective: objective.name == "accuracy",
            lambda objective: objective.direction == "maximize",
            lambda objective: not _COST_NAME.search(objective.name),
        ]
        found = (objective for test in tests for objective in self.objectives if test(objective))
        return next(found, self.objectives[0])

    @property
    def costs(self) -> list[ObjectiveEntry]:
        """Every objective but :attr:`quality`."""
        return [objective for objective in self.objectives if objective is not self.quality]

    @cached_property
    def candidates(self) -> Mapping[str, CandidateEntry]:
        """The candidates by id."""
        return {candidate.id: candidate for candidate in self.front.candidates}

    @property
    def devices(self) -> list[str]:
        """The devices that have a front of their own."""
        return [name for name in self.front.fronts if name != ALL]

    @property
    def knee(self) -> CandidateEntry | None:
        """The knee of the front over all objectives; None where the front is empty."""
        return self.candidates[self.front.knee] if self.front.knee is not None else None

    def objective(self, name: str) -> ObjectiveEntry:
        """The objective called ``name``.

        Raises:
            RunError: If the run has none of that name.
        """
        found = {objective.name: objective for objective in self.objectives}
        if name not in found:
            raise RunError(f"a run has the objectives of its job; got {name!r}: {nearest(name, found)}")
        return found[name]

    def members(self, device: str | None = None) -> list[CandidateEntry]:
        """The front over all objectives, or the front of one device, best quality first.

        Raises:
            RunError: If ``device`` has no front in this run.
        """
        if device is not None and device not in self.devices:
            raise RunError(
                f"a run has a front for each device of its job; got {device!r}: {nearest(device, self.devices)}"
            )
        ids = self.front.fronts[ALL if device is None else device]
        return self.by_quality(self.candidates[name] for name in ids)

    def by_quality(self, candidates: Iterable[CandidateEntry]) -> list[CandidateEntry]:
        """The candidates, best :attr:`quality` first."""
        return sorted(candidates, key=lambda one: -self.quality.sign * one.scores[self.quality.name].value)

    @cached_property
    def baselines(self) -> Mapping[str, Sequence[CandidateEntry]]:
        """The candidates of each baseline, best quality first; without the union of all baselines."""
        return {
            name: self.by_quality(self.candidates[one] for one in entry.ids)
            for name, entry in self.front.baselines.items()
            if name != ALL_BASELINES
        }

    @property
    def failed(self) -> list[TrialEntry]:
        """The trials that ended in an error, in order."""
        return [trial for trial in self.trials if trial.failed]

    @property
    def searched(self) -> list[TrialEntry]:
        """The trials of the search itself: all but the baselines."""
        return [trial for trial in self.trials if trial.baseline is None]

    def bits(self, policy: PolicyEntry) -> dict[str, int]:
        """Weight bits by layer, over the layers this run varied for the policy's student; 32 where untouched."""
        touched = {name: entry.weight_bits for name, entry in policy.layers.items()}
        return {name: touched.get(name, UNTOUCHED_BITS) for name in self._varied[policy.student_text][0]}

    def kept(self, policy: PolicyEntry) -> dict[str, float]:
        """Kept fraction by group, over the groups that this run varied for the policy's student; others keep all."""
        return {name: policy.keep.get(name, 1.0) for name in self._varied[policy.student_text][1]}

    @cached_property
    def _varied(self) -> Mapping[str, tuple[list[str], list[str]]]:
        """The layers and groups that any policy touched, by student, in natural order."""
        found: dict[str, tuple[set[str], set[str]]] = {}
        policies = [one.policy for one in self.front.candidates] + [one.policy for one in self.trials]
        for policy in policies:
            layers, groups = found.setdefault(policy.student_text, (set(), set()))
            layers.update(policy.layers)
            groups.update(name for name in policy.keep if not name.startswith(BLOCK))
        return {
            name: (sorted(layers, key=_natural), sorted(groups, key=_natural))
            for name, (layers, groups) in found.items()
        }


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sorting key that puts ``layer2`` before ``layer10``."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", name)
    return [(0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts]


def _text(path: Path) -> str:
    return _decode(path, _bytes(path))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(
            f"a run directory holds front.json, trials.jsonl and job.yaml; {path} is missing: "
            "give the folder that kneepoint search wrote, or finish the run with kneepoint resume"
        ) from None
    except OSError as error:
        raise RunError(f"a run's files can be read; got {error.strerror} for {path}: check its permissions") from error


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RunError(f"a run's files are UTF-8 text; {path} is not ({error}): restore the file") from error


def _read_front(directory: Path) -> FrontFile:
    path = directory / "front.json"
    data = _bytes(path)
    _check_schema(path, data)
    way_out = f"restore the file, or write it again with kneepoint resume {directory}"
    return _validated(FrontFile, data, str(path), way_out)


def _check_schema(path: Path, data: bytes) -> None:
    """Refuses other versions first: their other differences would only confuse."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return  # the validation that follows says what is malformed
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise RunError(
            f"a front has the schema {SCHEMA!r}; {path} has {_short(schema)}: "
            "read it with the version of kneepoint that wrote it"
        )


def _read_trials(directory: Path) -> tuple[TrialEntry, ...]:
    path = directory / "trials.jsonl"
    *lines, last = _bytes(path).split(b"\n")
    # Every record ends in a newline; what follows the last one is what an interruption left of a record.
    if _is_json(last):
        lines.append(last)
    way_out = "remove the line, and measure it again with kneepoint resume"
    return tuple(
        _validated(TrialEntry, line, f"{path}, line {number}", way_out)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )


class _Sensitivities(Entry):
    values: dict[str, list[float]]


def _read_sensitivities(directory: Path) -> Mapping[str, Sequence[float]]:
    """Nothing where there is no whole file: a run can do without it."""
    try:
        return _Sensitivities.model_validate_json((directory / "sensitivities.json").read_bytes()).values
    except (OSError, ValidationError):
        return {}


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _validated(kind: type[_Entry], data: bytes, where: str, way_out: str) -> _Entry:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        # The input of an error about the whole file is the whole file, which says nothing.
        received = f", got {_short(first['input'])}" if key else ""
        at = f"{where}, {_short(key)}" if key else where
        raise RunError(f"{at}: {first['msg'].removeprefix('Value error, ')}{received}: {way_out}") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _parse_job(directory: Path, text: str) -> Mapping[str, object]:
    path = directory / "job.yaml"
    way_out = "restore the file that kneepoint search wrote"
    try:
        job = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"a job is a YAML mapping; {path} does not parse ({reason[:200]}): {way_out}") from error
    if not isinstance(job, dict):
        raise RunError(f"a job is a YAML mapping; {path} holds {_short(job)}: {way_out}")
    return {str(key): value for key, value in job.items()}
