"""What a run measures: the log where it knows the answer, the evaluator where it does not, and the job's verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from kneepoint.compression.compressor import Report
from kneepoint.search.axis import Axis
from kneepoint.search.evaluator import Evaluator, NetworkBuilder
from kneepoint.search.front import Candidate, Front
from kneepoint.search.job import Job
from kneepoint.search.racing import Race, raced_metric
from kneepoint.search.record import Fidelity, Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.spaces.joint_space import Choice
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobFailed
from kneepoint.tasks.metrics import Metric, Score
from kneepoint.tasks.mixing import is_mixed

TEACHER = "teacher fp32"


class Trials:
    """The trials of one run; the first of them is the teacher, which fixes the scales.

    Args:
        job: What decides, and what must hold.
        directory: Of the run.
        report: Progress of long steps.

    Attributes:
        job: As given.
        directory: As given.
        log: Of all trials.
        evaluator: Measures what is not in the log.
        teacher: Scores of the fp32 teacher.
        axes: The objectives with their scales.

    Raises:
        JobFailed: If the teacher cannot be measured.
    """

    def __init__(self, job: Job, directory: RunDirectory, report: Report | None = None) -> None:
        self.job = job
        self.directory = directory
        self.log = directory.log()
        self.evaluator = Evaluator(
            job.space, job.scored, directory.path, job.seed, job.threads, job.settings, report, job.measure
        )
        self.teacher = self._teacher()
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
        record = self.log.find(policy.id, fidelity)
        if record is None:
            record = self.evaluator.evaluate(policy, fidelity, baseline, parameters, race)
            self.log.append(record)
        return record

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
            feasible=self.job.constraints.holds(record.values, self.teacher_values, self._directions),
            build=NetworkBuilder(self.evaluator, record),
        )

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
        return self.job.constraints.violations(record.values, self.teacher_values, self._directions)

    @property
    def teacher_values(self) -> dict[str, float]:
        """The teacher's score values by objective."""
        return {name: score.value for name, score in self.teacher.items()}

    def _teacher(self) -> dict[str, Score]:
        record = self.measure(Policy.build(), "ptq", baseline=TEACHER)
        if record.scores is None:
            raise JobFailed(f"the teacher itself cannot be measured: {record.error}")
        return dict(record.scores)
