"""When a search ends without a front, and what it says then."""

from __future__ import annotations

from collections.abc import Sequence

from kneepoint.search.front import Candidate, shown_values
from kneepoint.search.record import Record
from kneepoint.search.trials import Trials
from kneepoint.tasks.errors import JobError, JobFailed

GIVE_UP_AFTER = 5
"""Failures from the start on, without a success, after which the job itself is taken to be at fault."""
SHOWN = 3
SMALLER = "let the space have smaller networks: students, lower keep, fewer bits"


def require_success(records: Sequence[Record], trials: Trials) -> None:
    """Refuse to go on where nothing can be measured.

    Raises:
        JobFailed: If there is no success at all; the message ends with the last error.
        JobError: If nothing was measured because nothing that was proposed fits a device.
    """
    if not records and trials.job.tight_devices:
        raise JobError(f"no setting that was proposed fits {' or '.join(_names(trials))}; {SMALLER}")
    if all(record.scores is None for record in records):
        reason = f"; the last: {records[-1].error}" if records else ""
        raise JobFailed(f"the first {len(records)} candidates all failed (see {trials.log.place}){reason}")


def require_feasible(candidates: Sequence[Candidate], trials: Trials) -> None:
    """Refuse to go on where no candidate meets the constraints.

    Raises:
        JobError: Naming the candidates that are nearest to meeting them.
    """
    if any(candidate.feasible for candidate in candidates):
        return
    if all(_unfit(one, trials) > 0 for one in candidates):
        closest = min(candidates, key=lambda one: _unfit(one, trials))
        raise JobError(
            f"no candidate of {len(candidates)} fits {' or '.join(_names(trials))}; nearest: {closest.id}, which needs "
            f"{_unfit(closest, trials):.0%} more than there is; {SMALLER}"
        )
    read = trials.job.constraints.objectives
    nearest = sorted(candidates, key=lambda candidate: _missed(candidate, trials))[:SHOWN]
    shown = "; ".join(f"{candidate.id} {shown_values(candidate, read)}" for candidate in nearest)
    raise JobError(
        f"no candidate of {len(candidates)} meets {' and '.join(trials.job.constraint_texts)}; nearest: {shown}; "
        "loosen the constraints or give the search more trials"
    )


def _names(trials: Trials) -> list[str]:
    return [device.name for device in trials.job.devices]


def _unfit(candidate: Candidate, trials: Trials) -> float:
    """What is missing on the device that comes nearest, as a share of what there is."""
    record = trials.log.find(candidate.policy.id, candidate.fidelity)
    return 0.0 if record is None else trials.unfit(record.misfits)


def _missed(candidate: Candidate, trials: Trials) -> float:
    """The violations, each as a share of the teacher's value, so that milliseconds and accuracy can be added."""
    record = trials.log.find(candidate.policy.id, candidate.fidelity)
    violations = [] if record is None else trials.violations(record)[: len(trials.job.constraints.comparisons)]
    names = [comparison.objective for comparison in trials.job.constraints.comparisons]
    teacher = trials.teacher_values
    return sum(missed / (abs(teacher[name]) or 1.0) for name, missed in zip(names, violations, strict=True))
