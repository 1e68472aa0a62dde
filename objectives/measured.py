"""What a candidate costs on the machine at hand, measured instead of predicted."""

from __future__ import annotations

import re

from kneepoint.hardware_models.devices import THIS_MACHINE
from kneepoint.objectives.objective import Objective
from kneepoint.objectives.view import View
from kneepoint.tasks.errors import InputError, JobFailed, ObjectiveError
from kneepoint.tasks.metrics import Score

MEASURED = "measured_latency_ms"
SECONDS = 2.0
_NAME = re.compile(rf"{MEASURED}(/threads-(?P<threads>[1-9]\d*))?(/batch-(?P<batch>[1-9]\d*))?@{THIS_MACHINE}")


class MeasuredLatency(Objective):
    """Milliseconds of one inference in ONNX Runtime on this machine, with one standard error.

    The candidate's artifact is timed in a fresh process (:func:`kneepoint.deployment.measure`), one at a time on a
    machine: workers of a search wait for each other here. What else they compute meanwhile is noise, so measure with
    one worker or with cores to spare. A run is resumed only where processor,
    cores and ONNX Runtime are the same.

    The name is ``measured_latency_ms@this-machine``, with ``/threads-N`` and ``/batch-N`` before the ``@`` where they
    are not 1.

    Args:
        threads: Inside an operator, pinned to as many cores.
        batch: Samples of one inference.
        seconds: Time to spend on a candidate.

    Raises:
        ObjectiveError: If an argument is out of range.
    """

    unit = "ms"
    device = THIS_MACHINE

    def __init__(self, threads: int = 1, batch: int = 1, seconds: float = SECONDS) -> None:
        if threads < 1 or batch < 1 or not seconds > 0:
            raise ObjectiveError(
                "a latency is measured with at least one thread, a batch of at least 1 and some seconds; got "
                f"{threads}, {batch} and {seconds}"
            )
        self.threads = threads
        self.batch = batch
        self.seconds = seconds
        given = [f"/{key}-{value}" for key, value in (("threads", threads), ("batch", batch)) if value != 1]
        self.name = f"{MEASURED}{''.join(given)}@{THIS_MACHINE}"

    @classmethod
    def named(cls, name: str) -> MeasuredLatency:
        """The objective of this name.

        Raises:
            ObjectiveError: If the name is not one that an objective gets.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ObjectiveError(
                f"a measured latency is called {MEASURED}@{THIS_MACHINE}, with /threads-2, /batch-8 or both before "
                f"the @; got {name!r}"
            )
        return cls(int(found["threads"] or 1), int(found["batch"] or 1))

    @property
    def conditions(self) -> str:  # type: ignore[override]  # read-only here: it is found out, not set
        """The machine that scores belong to."""
        from kneepoint.deployment.machine import machine_name  # loads the runtime, which only measuring needs

        return machine_name()

    def score(self, view: View) -> Score:
        """The median over rounds, with one standard error.

        Raises:
            InputError: If this machine has fewer cores than threads.
            JobFailed: If the candidate cannot be exported or does not run.
        """
        from kneepoint.deployment.machine import cores_for  # loads the runtime, which only measuring needs
        from kneepoint.deployment.measuring import measure

        cores_for(self.threads)
        model = view.artifact
        try:
            found = measure(model, self.threads, self.batch, self.seconds)
        except InputError as error:  # of this candidate: the job is not to blame
            raise JobFailed(str(error)) from error
        return Score(found.median_ms, found.latency_ms.error)
