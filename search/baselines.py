"""The simple answers that a search has to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kneepoint.search.front import Candidate, Front
from kneepoint.search.job import Job
from kneepoint.search.progress import Progress
from kneepoint.search.record import Record
from kneepoint.search.trials import TEACHER, Trials
from kneepoint.search.workers.assignment import Assignment
from kneepoint.spaces.joint_space import STUDENT, Choice, JointSpace
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import Policy

RANDOM = "random policies"
_WIDTHS = {"half-width": 0.5, "quarter-width": 0.25}


def measure_baselines(trials: Trials, progress: Progress) -> dict[str, list[Candidate]]:
    """The candidates of every baseline, by its name; of the random policies the front of them.

    A policy that the search measured is not measured again.
    """
    wanted = baseline_policies(trials.job)
    found: dict[str, list[Candidate]] = {}
    assignments = [Assignment(policy, "ptq", name) for name, policy in wanted]
    records: dict[str, Record] = {}
    for record in trials.measured(assignments):
        records[record.id] = record
        progress.failures(trials.log.failed)
        progress.tell("measuring baselines", len(records), len(wanted))
    for assignment in assignments:
        record = records[assignment.id]
        if record.scores is not None:
            candidate = replace(trials.candidate(record), id=record.id, baseline=assignment.baseline)
            candidate = replace(candidate, feasible=candidate.feasible and not candidate.misfits)
            found.setdefault(str(assignment.baseline), []).append(candidate)
    progress.tell("measuring baselines", len(wanted), len(wanted))
    return {name: _front(group, trials) for name, group in found.items()}


def _front(group: Sequence[Candidate], trials: Trials) -> list[Candidate]:
    """Those that no other dominates, whether they fit the devices or not: a baseline is shown in any case."""
    given = {one.id: one for one in group}
    alike = [replace(one, misfits=frozenset()) for one in group]
    return [given[one.id] for one in Front(alike, trials.axes, trials.teacher_values)]


def baseline_policies(job: Job) -> list[tuple[str, Policy]]:
    """What every baseline consists of: its name and a policy, as many random ones as the search has trials."""
    random = random_parameters(job.space, job.trials, job.seed)
    named = list(fixed_baselines(job.space).items())
    return named + [(RANDOM, job.space.policy(parameters)) for parameters in random]


def fixed_baselines(space: JointSpace) -> dict[str, Policy]:
    """The teacher, uniform 8 and 4 bits, and the two plain students, fp32 and uniform 8-bit."""
    named = {TEACHER: Policy.build()}
    for bits in (8, 4):
        if bits in space.weight_bits:
            named[f"uniform {bits}-bit"] = space.policy(space.uniform("teacher", bits, max(space.keep)))
    for label, student in _plain_students(space).items():
        named[f"{label} student fp32"] = Policy.build(dict(space.members[student]))
        if 8 in space.weight_bits:
            named[f"{label} student 8-bit"] = space.policy(space.uniform(student, 8, max(space.keep)))
    return named


def random_parameters(space: JointSpace, count: int, seed: int) -> list[dict[str, Choice]]:
    """``count`` settings drawn uniformly from the space."""
    rng = np.random.default_rng((seed, 1))  # not the stream of the samplers
    students = list(space.members)
    drawn = []
    for _ in range(count):
        setting: dict[str, Choice] = {STUDENT: students[int(rng.integers(len(students)))]}
        setting.update({name: int(rng.integers(count)) for name, count in space.choices.items()})
        drawn.append(setting)
    return drawn


def _plain_students(space: JointSpace) -> dict[str, str]:
    """A half-width and a quarter-width member: by a ``width`` axis where there is one, else by parameter counts."""
    students = [name for name, member in space.members.items() if member]
    chosen: dict[str, str] = {}
    for label, width in _WIDTHS.items():
        of_width = [name for name in students if space.members[name].get("width") == width]
        if of_width:
            chosen[label] = max(of_width, key=lambda name: _parameters(space, name))
        elif students:
            target = width**2 * _parameters(space, "teacher")
            chosen[label] = min(students, key=lambda name: abs(math.log(_parameters(space, name) / target)))
    return chosen


def _parameters(space: JointSpace, student: str) -> int:
    """Of a whole member, or the teacher."""
    member = space.members[student]
    return lower(space.network(member), Policy.build(dict(member) or "teacher")).parameters
