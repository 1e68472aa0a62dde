"""Which students enter a search: all are trained for a slice of their steps, those that have a chance for the next.

As in successive halving (Jamieson & Talwalkar, AISTATS 2016), but on fronts: a student stops as soon as another one,
or the teacher, costs no more on any device and is better by more than noise after as many steps. The others are trained
to their end when the search first needs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kneepoint.search.progress import Progress
from kneepoint.search.record import SLICE_FIDELITIES, Record
from kneepoint.search.trials import Trials
from kneepoint.search.workers.assignment import Assignment
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.metrics import Metric, Score

FEWEST = 3
"""Students below which all enter the search."""
_ERRORS = 2.0
"""Standard errors of a difference that are no noise any more."""


def audition(trials: Trials, progress: Progress) -> float:
    """Let the space of a run hold the students alone that may reach its front.

    Returns:
        Seconds of training, over all workers.
    """
    space = trials.job.space
    left = {Policy.build(dict(member)).id: name for name, member in space.members.items() if member}
    if len(left) < FEWEST or not _comparable(trials):
        return 0.0
    seconds = 0.0
    for fidelity in SLICE_FIDELITIES:
        wanted = [Assignment(Policy.build(dict(space.members[name])), fidelity) for name in left.values()]
        records: list[Record] = []
        for record in trials.measured(wanted):
            records.append(record)
            seconds += record.seconds
            progress.tell("trying students", len(records), len(wanted))
        entrants = [_entrant(record, trials) for record in records if record.scores is not None]
        survivors = {entrant.id for entrant in promising(entrants, _teacher(trials), trials.job.task.metric)}
        left = {policy: name for policy, name in left.items() if policy in survivors}
        trials.events.write("students tried", fidelity=fidelity, left=sorted(left.values()))
    space.search_among(["teacher", *left.values()])
    return seconds


def _comparable(trials: Trials) -> bool:
    """Whether all that counts is known of a student before it is trained to its end: a metric, and predicted costs.

    What is measured, or is a user's own, may speak for a student that loses on everything else.
    """
    objectives, metric = trials.job.objectives, trials.job.task.metric.name
    costs = [entry for entry in objectives if entry.predicted]
    return bool(costs) and all(entry.predicted or entry.name == metric for entry in objectives)


@dataclass(frozen=True)
class Entrant:
    """What is known of a student so far.

    Attributes:
        id: Of its policy.
        quality: By the task's metric, after so many steps as the others.
        costs: Predicted, by objective.
        maximized: Objectives of which more is better.
    """

    id: str
    quality: Score
    costs: Mapping[str, float]
    maximized: frozenset[str] = frozenset()


def promising(entrants: Sequence[Entrant], teacher: Entrant, metric: Metric) -> list[Entrant]:
    """Those that neither the teacher nor another entrant leaves without a chance."""
    return [one for one in entrants if not any(_beats(other, one, metric) for other in (*entrants, teacher))]


def _beats(other: Entrant, one: Entrant, metric: Metric) -> bool:
    """Whether ``other`` costs no more anywhere and is better by more than noise."""
    for name, cost in one.costs.items():
        more = other.costs[name] - cost
        if (-more if name in one.maximized else more) > 0:
            return False
    sign = 1.0 if metric.direction == "maximize" else -1.0
    gain = sign * (other.quality.value - one.quality.value)
    return gain > _ERRORS * math.hypot(other.quality.error or 0.0, one.quality.error or 0.0)


def _entrant(record: Record, trials: Trials) -> Entrant:
    scores = dict(record.scores or {})
    return Entrant(record.policy.id, scores[trials.job.task.metric.name], *_costs(scores, trials))


def _teacher(trials: Trials) -> Entrant:
    return Entrant("", trials.job.task.teacher_score(), *_costs(trials.teacher, trials))


def _costs(scores: Mapping[str, Score], trials: Trials) -> tuple[dict[str, float], frozenset[str]]:
    predicted = [entry for entry in trials.job.objectives if entry.predicted]
    maximized = frozenset(entry.name for entry in predicted if entry.direction == "maximize")
    return {entry.name: scores[entry.name].value for entry in predicted}, maximized
