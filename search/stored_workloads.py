"""The kernels of every measured policy in the run directory, so that any device can price them later.

A search measures a policy once; what it costs on another device follows from its kernels alone. They are kept for all
runtimes that known devices have (a set of fusion rules each), in files that can be made again from the task: nothing
is lost with them but time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.devices import SHIPPED, list_devices, load_device
from kneepoint.hardware_models.many_workloads import ArenaRules, arena_rules
from kneepoint.hardware_models.workload import Workload
from kneepoint.hardware_models.workload_file import WorkloadFile, canonical
from kneepoint.search.job import Job
from kneepoint.search.progress import Progress
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import DeviceError

_SHARE = 0.02
"""Of the time since the search began."""
_AT_THE_END = 120.0
"""Seconds after which what is left is left to whoever asks for it."""
_BATCH = 16
"""Policies that are written at once."""

Rules = tuple[str, ...]


def known_runtimes(devices: Iterable[Device] = ()) -> dict[Rules, list[ArenaRules]]:
    """The sets of fusion rules that known devices and ``devices`` have, each with the arenas among them."""
    found: dict[Rules, list[ArenaRules]] = {}
    for device in (*devices, *_known_devices()):
        arenas = found.setdefault(canonical(device.fusion), [])
        rules = arena_rules(device.memory)
        if device.memory.region_kb and rules not in arenas:
            arenas.append(rules)
    return found


def _known_devices() -> Iterable[Device]:
    """Those that ship or that the user has; a broken file of the user's own is none of a search's business."""
    for name in list_devices():
        try:
            yield load_device(name)
        except DeviceError:
            if (path := SHIPPED / f"{name}.yaml").is_file():
                yield load_device(path)


class StoredWorkloads:
    """The folder ``workloads`` of a run: a file for every runtime. Files of another task are not read.

    Args:
        directory: Of the run, with its job.

    Raises:
        RunError: If there is no job.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.folder: Path = directory.path / "workloads"
        self._run = str(directory.read_job().get("fingerprint"))
        self._files: dict[Rules, WorkloadFile] = {}

    def file(self, rules: Sequence[str], arenas: Sequence[ArenaRules] = ()) -> WorkloadFile:
        """The file of a runtime, read once."""
        ordered = canonical(rules)
        if ordered not in self._files:
            path = self.folder / f"{'+'.join(ordered) or 'none'}.jsonl"
            self._files[ordered] = WorkloadFile(path, ordered, self._run, arenas)
        return self._files[ordered]

    def keep(self, rules: Sequence[str], workloads: Mapping[str, Workload]) -> None:
        """Write workloads of a runtime.

        Raises:
            OSError: If they cannot be written.
        """
        self.folder.mkdir(exist_ok=True)
        self.file(rules).append(workloads)


def lowered(space: JointSpace, policy: Policy, runtimes: Iterable[Rules]) -> dict[Rules, Workload]:
    """The kernels of a policy on every runtime.

    Raises:
        SpaceError: If the policy is none of the space's networks.
    """
    table = lower(space.network_of(policy), policy)
    return {rules: Workload.of(table, rules) for rules in runtimes}


class WorkloadKeeper:
    """Keeps the kernels of what a search measures, in a small share of its time and a while at its end.

    What cannot be written is left out: the search does not depend on it.

    Args:
        job: Of the run.
        directory: Of the run.
        clock: Seconds from any start, never falling.
    """

    def __init__(self, job: Job, directory: RunDirectory, clock: Callable[[], float] = time.monotonic) -> None:
        self._space = job.space
        self._devices = job.devices
        self._stored = StoredWorkloads(directory)
        self._runtimes: dict[Rules, list[ArenaRules]] | None = None
        self._clock = clock
        self._begun, self._spent = clock(), 0.0
        self._seen = 0
        self._waiting: dict[str, Policy] = {}
        self._failed = False

    def work(self, records: Callable[[], Sequence[Record]]) -> None:
        """Keep some of what was measured, as far as the share of the time goes.

        Args:
            records: Gives those of the log, in order.
        """
        start = self._clock()
        allowed = _SHARE * (start - self._begun) - self._spent
        if self._failed or allowed <= 0:
            return
        self._look_at(records())
        while self._waiting and not self._failed and self._clock() - start < allowed:
            self._keep(1)
        self._spent += self._clock() - start

    def finish(self, records: Sequence[Record], progress: Progress) -> None:
        """Keep what is left, the highest fidelities first; what takes too long is left to whoever asks for it."""
        start = self._clock()
        self._look_at(records)
        dear = {record.policy.id for record in records if record.fidelity not in ("ptq", "slice1", "slice2")}
        self._waiting = dict(sorted(self._waiting.items(), key=lambda entry: entry[0] not in dear))
        total, told = len(self._waiting), "keeping kernels for other devices"
        while self._waiting and not self._failed and self._clock() - start < _AT_THE_END:
            progress.tell(told, total - len(self._waiting), total)
            self._keep(_BATCH)

    def _look_at(self, records: Sequence[Record]) -> None:
        """The policies that are new since the last look."""
        if self._runtimes is None:
            self._runtimes = known_runtimes(self._devices)
        files = [self._stored.file(rules, arenas) for rules, arenas in self._runtimes.items()]
        for record in records[self._seen :]:
            if record.scores is not None and any(record.policy.id not in file for file in files):
                self._waiting.setdefault(record.policy.id, record.policy)
        self._seen = len(records)

    def _keep(self, count: int) -> None:
        runtimes = list(self._runtimes or {})
        found: dict[Rules, dict[str, Workload]] = {rules: {} for rules in runtimes}
        for key in list(self._waiting)[:count]:
            for rules, workload in lowered(self._space, self._waiting.pop(key), runtimes).items():
                found[rules][key] = workload
        try:
            for rules, workloads in found.items():
                self._stored.keep(rules, workloads)
        except OSError:  # no room, or no permission: it can be made again
            self._failed = True
