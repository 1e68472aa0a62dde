"""Every error kneepoint raises on purpose.

    KneepointError
    ├── InputError           what the user gave is wrong: the command line exits with 2
    │   ├── TaskError        the model, its data or its metric
    │   ├── SpaceError       the search space or a policy that does not fit it
    │   ├── DeviceError      a device name or device file
    │   ├── ObjectiveError   an objective, a constraint or an expression over them
    │   ├── JobError         the job file or the arguments of a search
    │   └── RunError         a run directory
    └── JobFailed            the job was well-formed and could not be done: the command line exits with 1
        └── ParityError      an exported artifact does not reproduce the candidate's own scores

The text of an error gives the rule, what was received, and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KneepointError(Exception):
    """The root of every error that kneepoint raises on purpose."""


class InputError(KneepointError):
    """What the user gave is wrong."""


class TaskError(InputError):
    """The model, its data or its metric cannot be used."""


class SpaceError(InputError):
    """The search space is malformed, or a policy does not fit it."""


class DeviceError(InputError):
    """A device is unknown or its file is malformed."""


class ObjectiveError(InputError):
    """An objective, a constraint or an expression over them is malformed."""


class JobError(InputError):
    """The job file or the arguments of a search are malformed."""


class RunError(InputError):
    """A run directory is missing, malformed, or holds another job."""


class JobFailed(KneepointError):  # noqa: N818 - it reads as the outcome it is: a failed job
    """The job was well-formed and could not be done."""


class ParityError(JobFailed):
    """An exported artifact does not reproduce the scores of its candidate."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown ``name``: the nearest known one first, then all of them.

    >>> nearest("acuracy", ["accuracy", "size_mb"])
    "did you mean 'accuracy'? Known: accuracy, size_mb"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known) if known else 'none'}"
