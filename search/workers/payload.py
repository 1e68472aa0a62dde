"""A job on its way to another process: pickled once, functions and classes of scripts and notebooks by value."""

from __future__ import annotations

import pickle
import sys
from mmap import mmap
from typing import Any

import cloudpickle

from kneepoint.tasks.errors import JobError

USER_MODULES = "kneepoint_user_"
"""What the modules of ``file.py:function`` references are called: no other process could import them."""


def packed(what: Any) -> bytes:
    """``what`` as bytes.

    Raises:
        JobError: If something in it cannot be pickled.
    """
    by_value = [module for name, module in sys.modules.items() if name.startswith(USER_MODULES)]
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(what))
    except Exception as error:  # pickling runs the user's own code
        reason = (str(error).splitlines() or [""])[0]
        raise JobError(
            f"the job must be picklable to travel to workers: {type(error).__name__}: {reason}; make what is named "
            "there inside the task's own function, or search in this process (workers=1, no ray)"
        ) from error
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)


def unpacked(data: bytes | memoryview | mmap) -> Any:
    """What :func:`packed` was given. Only for bytes that came through a pipe or Ray from the search itself."""
    return pickle.loads(data)  # noqa: S301 - never from a file that others may write
