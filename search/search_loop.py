"""Ask, measure, tell: the search itself, until its budget is spent."""

from __future__ import annotations

import time
from dataclasses import replace

from optuna.samplers import GPSampler

from kneepoint.search.baselines import baseline_policies
from kneepoint.search.budget import Budget
from kneepoint.search.job_advice import advice_of
from kneepoint.search.mirror import StudyMirror
from kneepoint.search.progress import Progress
from kneepoint.search.record import Record
from kneepoint.search.refusals import GIVE_UP_AFTER, require_success
from kneepoint.search.running_front import RunningFront
from kneepoint.search.samplers import sampler_named
from kneepoint.search.stopping import Stopping
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import Choice

PATIENCE = 200
"""Proposals in a row that were all measured before; after them the space is taken to be exhausted."""


class SearchLoop:
    """Proposes and measures candidates.

    A resumed run is the same loop from its beginning, answered from the log: a sampler that depends on its seed and on
    what it was told proposes the same again, at the cost of asking alone. Where the sampler takes another turn (it was
    not seeded, say), the rest of the log is told to it at once, and the search goes on from there. The Gaussian
    process asks too slowly for a replay, so it is told everything at the start.

    Args:
        trials: Measures.
        front: Kept up to date.
        progress: Told after every candidate.
    """

    def __init__(self, trials: Trials, front: RunningFront, progress: Progress) -> None:
        self._trials = trials
        self._front = front
        self._progress = progress
        job = trials.job
        sampler = sampler_named(job.sampler, job.space, job.seed, lambda: advice_of(trials, progress))
        self._study = StudyMirror.of(job, sampler)
        self._stopping = Stopping(sampler, [entry.name for entry in job.objectives if not entry.predicted])
        self._budget = Budget(job.trials, job.minutes)
        self._shown = {policy.id for _, policy in baseline_policies(job)}
        self._found: dict[str, Record] = {}
        self._untold = {record.policy.id: record for record in trials.proposed()}
        self._repeats = 0
        if isinstance(sampler, GPSampler):
            self._tell_the_rest()

    @property
    def found(self) -> list[Record]:
        """Everything that was proposed and measured, in order, with the sampler's parameters."""
        return [*self._found.values(), *self._untold.values()]

    def run(self) -> None:
        """Search until the budget is spent, the space is exhausted, or more candidates would add less than noise.

        Raises:
            JobFailed: If the first candidates all fail.
        """
        while not self._budget.spent and self._repeats <= PATIENCE:
            self._tell_progress()
            self._try_one()
            if len(self._found) == GIVE_UP_AFTER:
                require_success(self.found, self._trials)
            if self._stopping.is_due(self._front.front):
                self._progress.tell(
                    "no more to find that measurements could tell", self._budget.measured, self._budget.trials
                )
                break
        self._tell_the_rest()
        self._tell_progress()

    def _try_one(self) -> None:
        """Ask for a setting, measure it if it is a new policy, tell the outcome."""
        start = time.monotonic()
        trial = self._study.ask()
        parameters: dict[str, Choice] = dict(trial.params)
        policy = self._trials.job.space.policy(parameters)
        known = self._trials.log.find(policy.id, "ptq")
        if known is None and self._untold:  # not the way that the earlier process took
            self._tell_the_rest()
            if self._budget.spent:
                return
        race = None if policy.id in self._shown else self._trials.race(self._front.front)
        record = known or self._trials.measure(policy, "ptq", parameters=parameters, race=race)
        self._study.tell(trial, record.scores, self._trials.violations(record))
        self._take(record, parameters, record.seconds if known else time.monotonic() - start)

    def _take(self, record: Record, parameters: dict[str, Choice], seconds: float) -> None:
        """Count a proposal's outcome; a policy that was proposed before counts once."""
        if record.policy.id in self._found:
            self._repeats += 1
            return
        self._repeats = 0
        self._untold.pop(record.policy.id, None)
        self._found[record.policy.id] = replace(record, parameters=parameters, baseline=None)
        self._budget.spend(seconds)
        if record.scores is not None:
            self._front.add(self._trials.candidate(record))

    def _tell_the_rest(self) -> None:
        """Tell the sampler what the log holds and it did not propose."""
        for record in self._untold.values():
            self._study.add(record, self._trials.violations(record))
            self._found[record.policy.id] = record
            self._budget.spend(record.seconds)
        self._untold = {}

    def _tell_progress(self) -> None:
        budget = self._budget
        self._progress.failures(self._trials.log.failed)
        self._progress.tell("searching", budget.measured, budget.trials, budget.seconds_left)
