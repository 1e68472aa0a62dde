"""A search from its first candidate to its checked front: asks, measures, records, recovers, exports."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.deployment.exporting import export_network
from kneepoint.search.baselines import RANDOM, TEACHER, fixed_baselines, random_parameters
from kneepoint.search.evaluator import Evaluator
from kneepoint.search.front import Axis, Candidate, Front, largest_contributors
from kneepoint.search.front_file import front_content
from kneepoint.search.job import Job
from kneepoint.search.mirror import StudyMirror
from kneepoint.search.record import Fidelity, Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.samplers import sampler_named
from kneepoint.spaces.joint_space import Choice
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobError, JobFailed, ParityError
from kneepoint.tasks.metrics import Score

FINALISTS = 12
_GIVE_UP_AFTER = 5  # failures in a row, with no success before them
_ASKS_PER_TRIAL = 10  # a small space runs out of new settings


@dataclass(frozen=True)
class Status:
    """Where a search stands.

    Attributes:
        stage: What it is doing, in words.
        done: Steps of the stage that are done.
        total: Steps of the stage.
        seconds_left: Estimate for the stage, or None.
        best: The best value of each objective so far.
        hypervolume: Of the front so far.
        failed: Candidates that failed.
    """

    stage: str
    done: int
    total: int
    seconds_left: float | None
    best: Mapping[str, float]
    hypervolume: float
    failed: int


Observer = Callable[[Status], None]


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        front: Over all objectives, of candidates at the highest fidelity, exported and checked.
        baselines: Candidates of every baseline.
        teacher: Scores of the fp32 teacher.
        directory: The run directory.
        failed: Candidates that failed.
    """

    front: Front
    baselines: Mapping[str, Sequence[Candidate]]
    teacher: Mapping[str, Score]
    directory: Path
    failed: int

    @property
    def fronts(self) -> dict[str, Front]:
        """A front for every device, by its name."""
        devices = sorted({axis.device for axis in self.front.axes if axis.device})
        return {device: self.front.for_device(device) for device in devices}


class Driver:
    """Runs one job in one directory, in this process.

    Args:
        job: Checked.
        directory: Opened for the job.
        observer: Told where the search stands.
    """

    def __init__(self, job: Job, directory: RunDirectory, observer: Observer | None = None) -> None:
        self.job = job
        self.directory = directory
        self.observer = observer or (lambda status: None)
        self.log = directory.log()
        self.evaluator = Evaluator(
            job.space, job.scored, directory.path, job.seed, job.threads, job.settings, self._long_step
        )
        self.directions = {entry.name: entry.direction for entry in job.scored}
        self._status = Status("starting", 0, 1, None, {}, 0.0, 0)
        self._front_ids: list[str] | None = None
        torch.set_num_threads(job.threads)
        self.teacher = self._teacher()
        self.axes = self._axes()

    def run(self) -> Result:
        """The whole job; what the log holds already is not measured again.

        Raises:
            JobFailed: If the first candidates all fail.
            JobError: If no candidate meets the constraints.
        """
        try:
            self._search()
            self._require_feasible()
            finalists = self._finalists()
            front = self._checked_front(finalists)
            baselines = self._measure_baselines()
            self._write(front, baselines)
        finally:
            self._mirror_to_disk()
        self._tell("done", 1, 1)
        return Result(front, baselines, self.teacher, self.directory.path, self._failed())

    # --- stages -----------------------------------------------------------------------------------------------------

    def _teacher(self) -> dict[str, Score]:
        self._tell("measuring the teacher", 0, 1)
        record = self._measure(Policy.build(), "ptq", baseline=TEACHER)
        if record.scores is None:
            raise JobFailed(f"the teacher itself cannot be measured: {record.error}")
        return dict(record.scores)

    def _axes(self) -> list[Axis]:
        return [
            Axis(entry.name, entry.direction, entry.unit, entry.scale(self.job.task, self.teacher[entry.name]))
            for entry in self.job.objectives
        ]

    def _search(self) -> None:
        job = self.job
        sampler = sampler_named(job.sampler, job.space, job.seed)
        names = [(entry.name, entry.direction) for entry in job.objectives]
        study = StudyMirror(sampler, job.space.distributions, names, job.constraint_names)
        for record in self._own("ptq"):
            study.add(record, self._violations(record))
        start = time.monotonic()
        measured = already = len(self._own("ptq"))
        for _ in range(_ASKS_PER_TRIAL * job.trials):
            elapsed = time.monotonic() - start
            if measured >= job.trials or (job.minutes is not None and elapsed > 60 * job.minutes):
                break
            self._tell("searching", measured, job.trials, _seconds_left(elapsed, measured - already, job, measured))
            measured += self._try_one(study)
            self._give_up_if_all_fail()
        self._tell("searching", measured, job.trials)

    def _try_one(self, study: StudyMirror) -> int:
        """Ask, measure and tell one setting; 1 if it was new."""
        trial = study.ask()
        parameters: dict[str, Choice] = dict(trial.params)
        policy = self.job.space.policy(parameters)
        known = self.log.find(policy.id, "ptq")
        record = known or self._measure(policy, "ptq", parameters=parameters)
        values = None if record.scores is None else record.values
        study.tell(trial, values, self._violations(record))
        self._write_when_changed()
        return 0 if known else 1

    def _finalists(self) -> list[Candidate]:
        """The candidates of the measured front that cover most, after recovery."""
        front = self._front_of("ptq")
        chosen = largest_contributors(list(front), self.axes, FINALISTS)
        for index, candidate in enumerate(chosen):
            self._tell("recovering finalists", index, len(chosen))
            self._measure(candidate.policy, "recovered")
        self._tell("recovering finalists", len(chosen), len(chosen))
        ids = {candidate.id for candidate in chosen}
        return [self._candidate(record) for record in self._own("recovered") if record.policy.id in ids and record.scores]

    def _checked_front(self, finalists: Sequence[Candidate]) -> Front:
        """The front of the finalists, each exported and run; those whose artifact fails the gate are left out."""
        front = self._feasible_front(finalists)
        checked: list[Candidate] = []
        for index, candidate in enumerate(front):
            self._tell("exporting and checking", index, len(front))
            try:
                checked.append(self._exported(candidate))
            except ParityError as error:
                self._tell(f"left out {candidate.id}: {error}", index, len(front))
        return self._feasible_front(checked)

    def _measure_baselines(self) -> dict[str, list[Candidate]]:
        space = self.job.space
        fixed = fixed_baselines(space)
        random = [space.policy(entry) for entry in random_parameters(space, self.job.trials, self.job.seed)]
        wanted = [(name, policy) for name, policy in fixed.items()] + [(RANDOM, policy) for policy in random]
        found: dict[str, list[Candidate]] = {}
        for index, (name, policy) in enumerate(wanted):
            self._tell("measuring baselines", index, len(wanted))
            record = self.log.find(policy.id, "ptq") or self._measure(policy, "ptq", baseline=name)
            if record.scores is not None:
                found.setdefault(name, []).append(replace(self._candidate(record), id=record.id, baseline=name))
        return {name: self._best_of(group) for name, group in found.items()}

    def _best_of(self, group: list[Candidate]) -> list[Candidate]:
        return list(Front(group, self.axes, self._teacher_values())) if len(group) > 1 else group

    # --- one candidate ----------------------------------------------------------------------------------------------

    def _measure(
        self,
        policy: Policy,
        fidelity: Fidelity,
        baseline: str | None = None,
        parameters: dict[str, Choice] | None = None,
    ) -> Record:
        """The record of ``policy``: the log's, or a new one that is durable when this returns."""
        record = self.log.find(policy.id, fidelity)
        if record is None:
            record = self.evaluator.evaluate(policy, fidelity, baseline, parameters)
            self.log.append(record)
        return record

    def _candidate(self, record: Record) -> Candidate:
        assert record.scores is not None  # noqa: S101 - callers pass successes alone
        return Candidate(
            id=record.policy.id,
            policy=record.policy,
            scores=record.scores,
            fidelity=record.fidelity,
            feasible=self.job.constraints.holds(record.values, self._teacher_values(), self.directions),
            build=partial(build_candidate, self.evaluator, record),
        )

    def _exported(self, candidate: Candidate) -> Candidate:
        """``candidate`` with its artifact, executed score and test score; an earlier export is read back."""
        record = self.log.find(candidate.policy.id, candidate.fidelity)
        assert record is not None  # noqa: S101 - candidates come from records
        assert record.weights is not None  # noqa: S101 - recovered networks are stored
        folder = self.directory.artifacts
        manifest = folder / f"{record.weights}.json"
        if not manifest.exists() or not (folder / f"{record.weights}.onnx").exists():
            network = build_candidate(self.evaluator, record)
            task = self.job.task
            test = None if task.test is None else task.metric.score(*task.predict(network.module, split="test")).to_json()
            extra = {"test": test, "scores": {name: score.to_json() for name, score in candidate.scores.items()}}
            export_network(network, task, folder, file_name=f"{record.weights}.onnx", extra=extra)
        content = json.loads(manifest.read_text())
        metric = self.job.task.metric.name
        return replace(
            candidate,
            artifact=f"artifacts/{record.weights}.onnx",
            executed={metric: Score.from_json(content["executed"])},
            test={metric: Score.from_json(content["test"])} if content["test"] else None,
        )

    # --- fronts and files -------------------------------------------------------------------------------------------

    def _own(self, fidelity: Fidelity) -> list[Record]:
        """The search's own records at a fidelity, baselines left out."""
        return [r for r in self.log.records if r.fidelity == fidelity and r.baseline is None]

    def _front_of(self, fidelity: Fidelity) -> Front:
        return self._feasible_front([self._candidate(r) for r in self._own(fidelity) if r.scores is not None])

    def _feasible_front(self, candidates: Sequence[Candidate]) -> Front:
        feasible = [candidate for candidate in candidates if candidate.feasible]
        return Front(feasible, self.axes, self._teacher_values())

    def _violations(self, record: Record) -> list[float]:
        if record.scores is None:
            return []
        return self.job.constraints.violations(record.values, self._teacher_values(), self.directions)

    def _teacher_values(self) -> dict[str, float]:
        return {name: score.value for name, score in self.teacher.items()}

    def _write_when_changed(self) -> None:
        front = self._front_of("ptq")
        ids = [candidate.id for candidate in front]
        if ids == self._front_ids:
            return
        self._front_ids = ids
        best = {
            axis.name: min((c.values[axis.name] for c in front), key=axis.scale) for axis in self.axes if len(front)
        }
        self._status = replace(self._status, best=best, hypervolume=front.hypervolume)
        self._write(front, {})

    def _write(self, front: Front, baselines: Mapping[str, Sequence[Candidate]]) -> None:
        texts = self.job.constraint_texts
        self.directory.write_front(front_content(self.job.task.name, front, baselines, self.teacher, texts))

    def _mirror_to_disk(self) -> None:
        names = [(entry.name, entry.direction) for entry in self.job.objectives]
        sampler = sampler_named("random", self.job.space, 0)
        study = StudyMirror(sampler, self.job.space.distributions, names, self.job.constraint_names)
        study.write(self.directory.study_file, [(record, self._violations(record)) for record in self._own("ptq")])

    # --- refusals and progress --------------------------------------------------------------------------------------

    def _failed(self) -> int:
        return sum(record.scores is None for record in self.log.records)

    def _give_up_if_all_fail(self) -> None:
        own = self._own("ptq")
        if len(own) >= _GIVE_UP_AFTER and all(record.scores is None for record in own):
            raise JobFailed(f"the first {len(own)} candidates all failed; the last: {own[-1].error}")

    def _require_feasible(self) -> None:
        candidates = [self._candidate(record) for record in self._own("ptq") if record.scores is not None]
        if not candidates:
            raise JobFailed(f"no candidate could be measured; see {self.log.path}")
        if any(candidate.feasible for candidate in candidates):
            return
        teacher = self._teacher_values()
        missed = self.job.constraints.violations
        nearest = sorted(candidates, key=lambda c: sum(missed(c.values, teacher, self.directions)))[:3]
        read = self.job.constraints.objectives
        shown = "; ".join(
            f"{c.id} ({', '.join(f'{name} = {c.values[name]:.4g}' for name in read)})" for c in nearest
        )
        raise JobError(
            f"no candidate of {len(candidates)} meets {' and '.join(self.job.constraint_texts)}; nearest: {shown}; "
            "loosen the constraints or give the search more trials"
        )

    def _long_step(self, what: str, done: int, total: int) -> None:
        if what.startswith("student"):  # the one step that takes long enough to be watched
            self._tell(f"training {what}", done, total)

    def _tell(self, stage: str, done: int, total: int, seconds_left: float | None = None) -> None:
        failed = self._failed() if hasattr(self, "log") else 0
        self._status = replace(
            self._status, stage=stage, done=done, total=total, seconds_left=seconds_left, failed=failed
        )
        self.observer(self._status)


def build_candidate(evaluator: Evaluator, record: Record) -> CompressedNetwork:
    """The network of a record: read back where it was stored, made again (the same, by its seed) otherwise."""
    if record.weights is None:
        return evaluator.build(record.policy, record.fidelity)
    network = evaluator.compressor.train_student(dict(record.policy.student))
    return CompressedNetwork.load(evaluator.directory / "artifacts", record.weights, record.policy, network)


def _seconds_left(elapsed: float, done_here: int, job: Job, measured: int) -> float | None:
    if done_here == 0:
        return None if job.minutes is None else 60 * job.minutes
    by_trials = elapsed / done_here * (job.trials - measured)
    return by_trials if job.minutes is None else min(by_trials, 60 * job.minutes - elapsed)
