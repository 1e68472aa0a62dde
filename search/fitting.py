"""Whether anything in a job's space fits its devices, before anything is measured."""

from __future__ import annotations

from kneepoint.objectives.view import View
from kneepoint.search.inspection import student_parameters
from kneepoint.search.refusals import SMALLER
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import STUDENT, JointSpace
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobError


def require_fitting(trials: Trials) -> None:
    """Refuse a job before anything is measured where the least of its space does not fit a device.

    The least are the teacher and the smallest student, with the fewest bits, the narrowest channels and no block that
    may be left out.

    Raises:
        JobError: Naming the device, what is needed and what there is.
    """
    space = trials.job.space
    for device in trials.job.tight_devices:
        found = [View(trials.job.task, one, space.network_of(one), None, None).cost(device) for one in _least(space)]
        if all(cost.misfits for cost in found):
            least = min(found, key=lambda cost: max(one.excess for one in cost.misfits))
            raise JobError(
                f"nothing in the space fits {device.name}: of the smallest network {least.misfits[0]}; {SMALLER}, or "
                "leave the device out"
            )


def _least(space: JointSpace) -> list[Policy]:
    """The smallest settings of the teacher and of the student with the fewest parameters."""
    sizes = student_parameters(space)
    students = ["teacher", *([min(sizes, key=lambda name: sizes[name])] if sizes else [])]
    lowest = dict.fromkeys(space.choices, 0)  # all choices are in rising order
    return [space.policy({**lowest, STUDENT: student}) for student in students]
