"""What the measured policies of a run cost on a device, from the kernels in its directory, or from its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.limits import Misfit, misfits
from kneepoint.hardware_models.many_workloads import arena_rules, cost_of_many
from kneepoint.objectives.costs import Energy, Latency, OnDevice, PeakMemory
from kneepoint.objectives.view import model_of
from kneepoint.search.job import Job
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.stored_workloads import StoredWorkloads, lowered
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import KneepointError, RunError
from kneepoint.tasks.metrics import Score

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prices:
    """What policies cost on a device.

    Attributes:
        scores: By policy id, of every objective that is about the device.
        misfits: By policy id, the limits of the device that it exceeds; those that fit have none.
    """

    scores: Mapping[str, Mapping[str, Score]]
    misfits: Mapping[str, tuple[Misfit, ...]]


class DevicePrices:
    """Prices policies of a run on one device.

    Args:
        directory: Of the run.
        device: The device.
        job: Loads the run's job; asked only where kernels are missing.
        say: Told of work that takes a while.
    """

    def __init__(self, directory: RunDirectory, device: Device, job: Callable[[], Job], say: Say | None = None) -> None:
        self.directory = directory
        self.device = device
        self._load_job = job
        self._say = say or _say_nothing
        self._stored = StoredWorkloads(directory)

    def of(self, kinds: Sequence[type[OnDevice]], policies: Mapping[str, Callable[[], Policy]]) -> Prices:
        """What all of ``policies`` cost.

        Args:
            kinds: Of cost.
            policies: The way to each, which is gone where its kernels are missing, by its id.

        Raises:
            RunError: If kernels are missing that cannot be made again.
        """
        file = self._stored.file(self.device.fusion, [arena_rules(self.device.memory)])
        missing = [key for key in policies if key not in file]
        if missing:
            self._make({key: policies[key]() for key in missing}, file.damaged)
        keys = list(policies)
        costs = cost_of_many(model_of(self.device), file.workloads(keys))
        power = self.device.power.relative_error if self.device.power else None
        ratio = np.hypot(costs.latency_ms_error / costs.latency_ms, power or 0.0)
        energy = costs.energy_mj if costs.energy_mj is not None else np.full(len(keys), np.nan)
        columns = {
            Latency: (costs.latency_ms, costs.latency_ms_error),
            Energy: (energy, energy * ratio),
            PeakMemory: (costs.peak_memory_bytes / 1e6, None),
        }
        named = {f"{kind.prefix}@{self.device.name}": columns[kind] for kind in kinds}
        scores = {
            key: {
                name: Score(float(values[row]), None if errors is None else float(errors[row]))
                for name, (values, errors) in named.items()
            }
            for row, key in enumerate(keys)
        }
        sizes = zip(keys, costs.storage_bytes.tolist(), costs.peak_memory_bytes.tolist(), strict=True)
        return Prices(scores, {key: misfits(self.device, stored, peak) for key, stored, peak in sizes})

    def _make(self, missing: Mapping[str, Policy], damaged: str | None) -> None:
        """Lower policies whose kernels are not in the run directory, and keep them there."""
        why = f" ({self._stored.folder.name}/ is damaged: {damaged})" if damaged else ""
        self._say(f"the run directory lacks the kernels of {len(missing)} policies{why}: loading the task to trace it")
        job = self.job(len(missing))
        rules = self._stored.file(self.device.fusion).rules
        made = {key: lowered(job.space, policy, [rules])[rules] for key, policy in missing.items()}
        try:
            self._stored.keep(rules, made)
        except OSError as error:
            raise RunError(
                f"cannot write {self._stored.folder}: {error.strerror}; make room, or copy the run to where you may "
                "write"
            ) from error

    def job(self, count: int) -> Job:
        """The run's job, loaded now.

        Args:
            count: Policies that need it.

        Raises:
            RunError: If it cannot be loaded, or its task is another now.
        """
        try:
            job = self._load_job()
        except KneepointError as error:
            raise RunError(
                f"{self.device.name} needs the kernels of {count} policies that {self._stored.folder} does not hold, "
                f"and the task that they could be made from cannot be loaded: {error}"
            ) from error
        saved = self.directory.read_job().get("fingerprint")
        if job.task.fingerprint() != saved:
            raise RunError(
                f"the task of {self.directory.path} is another now (its teacher or validation data changed), so the "
                "kernels of its policies cannot be made again; bring back the task as it was"
            )
        return job


def _say_nothing(line: str) -> None:
    del line
