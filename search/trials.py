"""What a run measures: the log where it knows the answer, the evaluator where it does not, and the job's verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from kneepoint.compression.compressor import Report
from kneepoint.objectives.view import View
from kneepoint.search.axis import Axis
from kneepoint.search.dispatcher import Dispatcher
from kneepoint.search.evaluator import Evaluator, NetworkBuilder
from kneepoint.search.event_log import EventLog
from kneepoint.search.front import Candidate, Front
from kneepoint.search.job import Job
from kneepoint.search.logs import log_of
from kneepoint.search.racing import Race, raced_metric
from kneepoint.search.record import Fidelity, Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.workers.assignment import Assignment
from kneepoint.search.workers.choosing import executor_of
from kneepoint.search.workers.worker_state import WorkerState
from kneepoint.spaces.joint_space import Choice
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import InputError, JobFailed
from kneepoint.tasks.metrics import Metric, Score
from kneepoint.tasks.mixing import is_mixed

TEACHER = "teacher fp32"
_BETWEEN_DRIVERS = 1_000_003
"""Between the seeds of two drivers' samplers."""


class Trials:
    """The trials of one run; the first of them is the teacher, which fixes the scales.

    Args:
        job: What decides, and what must hold.
        directory: Of the run.
        report: Progress of long steps.
        told: Called with every new record.

    Attributes:
        job: As given.
        directory: As given.
        log: Of all trials.
        evaluator: Measures what is not in the log.
        events: What happened, line by line.
        teacher: Scores of the fp32 teacher.
        axes: The objectives with their scales.

    Raises:
        JobFailed: If the teacher cannot be measured.
    """

    def __init__(
        self,
        job: Job,
        directory: RunDirectory,
        report: Report | None = None,
        told: Callable[[Record], None] | None = None,
    ) -> None:
        self.job = job
        self.directory = directory
        self.log = log_of(job, directory)
        self.events = EventLog(directory.events_file, told)
        self._report = report
        self.evaluator = Evaluator(
            job.space, job.scored, directory.path, job.seed, job.threads, job.settings, report, job.measure
        )
        try:
            self.teacher = self._teacher()
        except BaseException:
            self.log.close()  # a driver that never began holds nothing
            raise
        self.axes = [
            Axis(entry.name, entry.direction, entry.unit, entry.scale(job.task, self.teacher[entry.name]))
            for entry in job.objectives
        ]
        self._directions = {entry.name: entry.direction for entry in job.scored}

    def measure(
        self,
        policy: Policy,
        fidelity: Fidelity,
        baseline: str | None = None,
        parameters: dict[str, Choice] | None = None,
        race: Race | None = None,
    ) -> Record:
        """The record of ``policy``: the log's, or a new one that is durable when this returns.

        The arguments are those of :meth:`Evaluator.evaluate`.

        Raises:
            InputError: If the job is wrong rather than the candidate, or the log cannot be written.
        """
        return next(self.measured([Assignment(policy, fidelity, baseline, parameters, race)]))

    def measured(self, assignments: Iterable[Assignment]) -> Iterator[Record]:
        """The records of all ``assignments``: the log's, or new ones, as they end.

        Raises:
            InputError: As :meth:`measure`.
        """
        return self.dispatcher.measured(assignments)

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Hands out what is to be measured; its workers begin when it is asked for.

        Raises:
            JobError: If the job cannot travel to its workers.
        """
        job = self.job
        executor = executor_of(job.workers, job.ray, self.evaluator, self.directory.worker_output, self._report)
        return Dispatcher(executor, self.log, job.workers.retries, self.directory.take, self.events)

    @property
    def repeatable(self) -> bool:
        """Whether candidates end in the order they are proposed in, so that the same run can be had again."""
        return self.job.workers.count == 1 and self.job.ray is None and self.job.storage is None

    @property
    def seed(self) -> int:
        """Of the sampler: every driver of a run proposes something else."""
        return self.job.seed + _BETWEEN_DRIVERS * self.log.driver

    def workers(self) -> Sequence[WorkerState]:
        """What every worker does; nothing before there are any."""
        return self.dispatcher.workers() if "dispatcher" in self.__dict__ else []

    def close(self) -> None:
        """Stop the workers."""
        if "dispatcher" in self.__dict__:
            self.dispatcher.close()
        else:
            self.log.close()

    def proposed(self) -> list[Record]:
        """The records of the sampler's proposals, in the order they ended."""
        return [record for record in self.log.records if record.baseline is None and record.parameters is not None]

    def candidate(self, record: Record) -> Candidate:
        """A record of a success as a candidate.

        Raises:
            ValueError: If the record is of a failure.
        """
        if record.scores is None:
            raise ValueError(f"{record.id} failed, so it is no candidate: {record.error}")
        return Candidate(
            id=record.policy.id,
            policy=record.policy,
            scores=record.scores,
            fidelity=record.fidelity,
            feasible=self.job.constraints.holds(record.values, self.teacher_values, self._directions)
            and self.unfit(record.misfits) == 0.0,
            misfits=frozenset(record.misfits),
            build=self.builder(record),
        )

    def builder(self, record: Record) -> NetworkBuilder:
        """The way to the network of a record of a success."""
        return NetworkBuilder(self.evaluator, record)

    def candidates(self, records: Iterable[Record]) -> list[Candidate]:
        """Those of the successes among ``records``."""
        return [self.candidate(record) for record in records if record.scores is not None]

    def front(self, candidates: Sequence[Candidate], within_noise: bool = False) -> Front:
        """The front of the feasible ones."""
        return Front([one for one in candidates if one.feasible], self.axes, self.teacher_values, within_noise)

    def race(self, front: Front) -> Race | None:
        """What the next candidate has to beat to be measured whole; None where candidates cannot be raced.

        They are where the simulator measures nothing but one metric that is a mean over samples, and the validation
        samples stand in no particular order.
        """
        if self._raced is None or not len(front):
            return None
        metric, samples = self._raced
        directions = {name: direction for name, direction in self._directions.items() if name != metric.name}
        return Race(metric, directions, samples, [one.values for one in front])

    @cached_property
    def _raced(self) -> tuple[Metric, int] | None:
        """What is raced, and the number of validation samples."""
        metric = raced_metric(self.job.scored)
        if metric is None or metric.per_sample is None or self.job.measure != "simulator":
            return None
        outputs, targets = self.job.task.predict(self.job.task.model)
        values = metric.per_sample(outputs, targets)
        return (metric, len(values)) if is_mixed(values, targets) else None

    def violations(self, record: Record) -> list[float]:
        """By how much each comparison of the constraints is missed; empty for a failure."""
        if record.scores is None:
            return []
        missed = self.job.constraints.violations(record.values, self.teacher_values, self._directions)
        return [*missed, self.unfit(record.misfits)] if self.job.tight_devices else missed

    def unfit(self, misfits: Mapping[str, float]) -> float:
        """What is missing on the device that comes nearest; 0 where a candidate fits one, or there is none."""
        missing = [misfits.get(device.name, 0.0) for device in self.job.devices]
        return min(missing, default=0.0)

    def counted(self, scores: Mapping[str, Score], misfits: Collection[str]) -> dict[str, Score]:
        """Scores as they count on fronts: on a device that a candidate does not fit they are no better than the worst.

        What is at the worst of one objective adds nothing to any front that the objective decides.
        """
        worst = {axis.name: axis.scale.worst for axis in self.axes if axis.device in misfits}
        return {
            name: Score(max(score.value, worst[name]), score.error) if name in worst else score
            for name, score in scores.items()
        }

    def cannot_fit(self, policy: Policy) -> bool:
        """Whether a policy fits no device of the job, as far as that can be told without measuring it."""
        if not self.job.tight_devices:
            return False
        view = View(self.job.task, policy, self.job.space.network_of(policy), None, None)
        try:
            return self.unfit(view.misfits(self.job.devices)) > 0.0
        except InputError:
            raise  # the job is wrong, not the candidate
        except Exception:  # the evaluator finds out what is wrong with it
            return False

    @property
    def teacher_values(self) -> dict[str, float]:
        """The teacher's score values by objective."""
        return {name: score.value for name, score in self.teacher.items()}

    def _teacher(self) -> dict[str, Score]:
        """Measured here, before there are workers: a job that is wrong says so at once."""
        policy = Policy.build()
        record = self.log.find(policy.id, "ptq")
        if record is None:
            measured = self.evaluator.evaluate(policy, "ptq", TEACHER)
            record = self.log.append(replace(measured, ended=time.time()))
        if record.scores is None:
            raise JobFailed(f"the teacher itself cannot be measured: {record.error}")
        return dict(record.scores)
