"""Ask, have measured, tell: the search itself, until its budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from optuna.samplers import BaseSampler, GPSampler

from kneepoint.search.baselines import baseline_policies
from kneepoint.search.budget import Budget
from kneepoint.search.climb import Climb
from kneepoint.search.direct_study import DirectStudy
from kneepoint.search.front import Candidate
from kneepoint.search.job import Job
from kneepoint.search.job_advice import advice_of
from kneepoint.search.mirror import StudyMirror
from kneepoint.search.progress import Progress
from kneepoint.search.proposing import Asked, Proposals
from kneepoint.search.record import Record
from kneepoint.search.refusals import GIVE_UP_AFTER, require_success
from kneepoint.search.running_front import RunningFront
from kneepoint.search.samplers import anchors, sampler_named
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.search.stopping import Stopping
from kneepoint.search.stored_workloads import WorkloadKeeper
from kneepoint.search.trials import Trials
from kneepoint.search.workers.assignment import Assignment
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.metrics import Score

PATIENCE = 200
"""Proposals in a row that were all measured before; after them the space is taken to be exhausted."""
UNFIT = 2_000
"""Proposals in a row that fit no device of the job; after them nothing that fits is expected any more."""

Mirror = Callable[[Record, Sequence[float]], None]


class SearchLoop:
    """Proposes candidates, as many at a time as there are workers, and learns from each as it ends.

    A run of one worker is resumed as the same loop from its beginning, answered from the log: a sampler that depends on
    its seed and on what it was told proposes the same again, at the cost of asking alone. Where the sampler takes
    another turn (it was not seeded, say), the rest of the log is told to it at once, and the search goes on from there.
    With several workers, whose order nobody can repeat, and with the Gaussian process, which asks too slowly for a
    replay, the log is told at the start.

    Args:
        trials: Measures.
        front: Kept up to date.
        progress: Told after every candidate.
        mirror: Told of every candidate, with the violations of its constraints.
        climb: Takes candidates to the next fidelity in the second half of the search.
        spent: Seconds of the budget that are gone before it begins.
        keeper: Keeps kernels of what was measured while the search goes on.

    Attributes:
        climb: As given.
        candidates: The successes so far that were measured on all samples.
    """

    def __init__(
        self,
        trials: Trials,
        front: RunningFront,
        progress: Progress,
        mirror: Mirror,
        climb: Climb,
        spent: float = 0.0,
        keeper: WorkloadKeeper | None = None,
    ) -> None:
        self._keeper = keeper
        self._trials = trials
        self._front = front
        self._progress = progress
        self._mirror = mirror
        self.climb = climb
        job = trials.job
        sampler = sampler_named(
            job.sampler, job.space, trials.seed, lambda: advice_of(trials, progress), job.workers.count
        )
        self._study = _proposals(job, sampler)
        self._stopping = Stopping(sampler, [entry.name for entry in job.objectives if not entry.predicted])
        self._budget = Budget(job.trials, job.minutes, spent)
        self._shown = {policy.id for _, policy in baseline_policies(job)}
        self._found: dict[str, Record] = {}
        self.candidates: list[Candidate] = []
        self._asked: dict[str, list[Asked]] = {}
        self._untold = {record.policy.id: record for record in trials.proposed()}
        self._repeats = self._unfit = 0
        self._is_over = self._has_success = False
        self._last_end = time.monotonic()
        if isinstance(sampler, GPSampler) or not trials.repeatable:
            self._tell_the_rest()
            self._ask_for_anchors_left_out(sampler)

    @property
    def found(self) -> list[Record]:
        """Everything that was proposed and measured, in order, with the sampler's parameters."""
        return [*self._found.values(), *self._untold.values()]

    def run(self) -> None:
        """Search until the budget is spent, the space is exhausted, or more candidates would add less than noise.

        Raises:
            JobFailed: If the first candidates all fail.
        """
        self._last_end = time.monotonic()
        dispatcher = self._trials.dispatcher
        while self._wants_more or self._asked:
            self._tell_progress()
            while dispatcher.room and self._begin():
                pass
            if self._keeper is not None:
                self._keeper.work(lambda: self._trials.log.records)
            for record in dispatcher.finished():
                self._take(record)
        self._tell_the_rest()
        self._tell_progress()

    @property
    def _wants_more(self) -> bool:
        """Whether another candidate is to be proposed."""
        if self._is_over or self._repeats > PATIENCE or self._unfit > UNFIT:
            return False
        return not self._budget.spent_with(len(self._asked))

    def _begin(self) -> bool:
        """Have something measured; whether there is anything.

        Candidates climb from the middle of the search on, half of them until its end. When the last settings are being
        measured, workers that have nothing else to do take up the others.
        """
        wants_more = self._wants_more
        share = max(self._budget.share - 0.5, 0.0) if wants_more else 1.0
        if share and self.climb.wants_more(share) and self.climb.start(self.candidates):
            return True
        if wants_more:
            self._propose()
        return wants_more

    def _propose(self) -> None:
        """Ask for a setting; its policy is measured, if nobody has done so or is at it."""
        asked = self._study.ask()
        policy = self._trials.job.space.policy(asked.parameters)
        if self._is_left_out(asked, policy):
            return
        known = self._trials.log.find(policy.id, "ptq")
        if known is None and self._untold:  # not the way that the earlier process took
            self._tell_the_rest()
            if not self._wants_more:
                return
        if policy.id in self._asked:
            self._repeats += 1
        self._asked.setdefault(policy.id, []).append(asked)
        if known is not None:
            self._take(known)
        elif len(self._asked[policy.id]) == 1:
            race = None if policy.id in self._shown else self._trials.race(self._front.front)
            self._trials.dispatcher.start(Assignment(policy, "ptq", None, asked.parameters, race))

    def _is_left_out(self, asked: Asked, policy: Policy) -> bool:
        """Whether a setting fits no device of the job, so that it is not measured."""
        if not self._trials.cannot_fit(policy):
            self._unfit = 0
            return False
        self._study.tell(asked, None, [])
        self._unfit += 1
        return True

    def _counted(self, record: Record) -> dict[str, Score] | None:
        """Its scores as they count on fronts; None for a failure."""
        return None if record.scores is None else self._trials.counted(record.scores, record.misfits)

    def _take(self, record: Record) -> None:
        """Tell the sampler of an outcome, whoever had it measured; a policy counts once."""
        if record.fidelity != "ptq":
            if self.climb.take(record) and self._trials.dispatcher.slots == 1:
                self._last_end += record.seconds  # the budget is one of the search itself
            return
        violations = self._trials.violations(record)
        asked = self._asked.pop(record.policy.id, [])
        for one in asked:
            self._study.tell(one, self._counted(record), violations)
        if record.policy.id in self._found:
            self._repeats += 1
        elif asked:
            self._count(replace(record, parameters=asked[0].parameters, baseline=None), violations)
        elif record.parameters is not None:  # of another driver
            self._study.add(replace(record, scores=self._counted(record)), violations)
            self._count(record, violations)

    def _count(self, record: Record, violations: Sequence[float]) -> None:
        """A new candidate: of the budget, of the front perhaps, and maybe the last."""
        self._repeats = 0
        is_known = self._untold.pop(record.policy.id, None) is not None
        self._found[record.policy.id] = record
        self._mirror(record, violations)
        self._budget.spend(self._seconds_of(record, is_known), record.seconds, self._trials.dispatcher.slots)
        if record.scores is not None:
            self._has_success = True
            self._front.add(self._candidate(record))
        if not self._has_success and len(self._found) >= GIVE_UP_AFTER:
            require_success(self.found, self._trials)
        if self._stopping.is_due(self._front.front) and not self._is_over:
            self._is_over = True
            said = "no more to find that measurements could tell"
            self._progress.tell(said, self._budget.measured, self._budget.trials)

    def _candidate(self, record: Record) -> Candidate:
        """Of a success; the next ones to climb are chosen among all of them."""
        candidate = self._trials.candidate(record)
        if record.samples is None:
            self.candidates.append(candidate)
        return candidate

    def _seconds_of(self, record: Record, is_known: bool) -> float:
        """Wall time that passed for a candidate since the one before it."""
        if is_known:
            return record.seconds
        now, before = time.monotonic(), self._last_end
        self._last_end = now
        return now - before

    def _tell_the_rest(self) -> None:
        """Tell the sampler what the log holds and it did not propose."""
        before = 0.0
        for record in self._untold.values():
            violations = self._trials.violations(record)
            self._study.add(replace(record, scores=self._counted(record)), violations)
            self._mirror(record, violations)
            self._found[record.policy.id] = record
            if record.scores is not None:
                self._has_success = True
                self._candidate(record)
            # Several workers ended one after the other: each counts from the end of the last, or from its own start.
            between = record.ended - before if before and record.ended else record.seconds
            self._budget.spend(min(max(between, 0.0), record.seconds), record.seconds)
            before = record.ended
        self._untold = {}

    def _ask_for_anchors_left_out(self, sampler: BaseSampler) -> None:
        """Those that were under way when the earlier process ended come first."""
        space = self._trials.job.space
        if isinstance(sampler, KneepointSampler) and self._found:
            left_out = [setting for setting in anchors(space) if space.policy(setting).id not in self._found]
            self._study.enqueue(left_out)

    def _tell_progress(self) -> None:
        budget = self._budget
        self._progress.failures(self._trials.log.failed)
        self._progress.tell("searching", budget.measured, budget.trials, budget.seconds_left)


def _proposals(job: Job, sampler: BaseSampler) -> Proposals:
    """What asks the sampler: a study of Optuna, or, for the default one, next to nothing."""
    if not isinstance(sampler, KneepointSampler):
        return StudyMirror.of(job, sampler)
    names = [(entry.name, entry.direction) for entry in job.objectives]
    measured = [entry.name for entry in job.objectives if not entry.predicted]
    return DirectStudy(sampler, job.space.distributions, names, measured)
