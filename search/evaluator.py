"""Policy and fidelity in, record out: the one place where a candidate is measured."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.compressor import Compressor, Report
from kneepoint.compression.distillation import Distillation
from kneepoint.compression.settings import CompressionSettings
from kneepoint.compression.student_store import StudentStore
from kneepoint.deployment.execution import Execution
from kneepoint.hardware_models.device import Device
from kneepoint.objectives.objective import Objective
from kneepoint.objectives.view import View
from kneepoint.search.racing import Heat, Race
from kneepoint.search.record import SLICE_FIDELITIES, Fidelity, Record, non_finite, recordable
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import BLOCK, Policy
from kneepoint.tasks.errors import InputError, JobError, RunError
from kneepoint.tasks.metrics import Score
from kneepoint.tasks.task import Task

MeasuredBy = Literal["simulator", "onnxruntime"]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class Evaluator:
    """Measures policies. Picklable; the same seed and threads give the same scores in every process and order.

    Args:
        space: Whose policies are measured.
        objectives: Bound to the space's task.
        directory: The run directory, for trained students and stored networks.
        seed: Governs students, calibration and recovery.
        threads: Threads of torch while measuring.
        settings: How policies become networks.
        report: Progress of long steps, in this process only.
        measure: Whether outputs come from the ``simulator`` or from ``onnxruntime`` on this machine.
    """

    def __init__(
        self,
        space: JointSpace,
        objectives: Sequence[Objective],
        directory: Path,
        seed: int = 0,
        threads: int = 1,
        settings: CompressionSettings | None = None,
        report: Report | None = None,
        measure: MeasuredBy = "simulator",
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.directory = directory
        self.seed = seed
        self.threads = threads
        self.settings = settings or CompressionSettings()
        self.report = report
        self.measure = measure
        self._compressor: Compressor | None = None
        self._execution: Execution | None = None

    def evaluate(
        self,
        policy: Policy,
        fidelity: Fidelity = "ptq",
        baseline: str | None = None,
        parameters: dict[str, str | int] | None = None,
        race: Race | None = None,
        worker: str | None = None,
    ) -> Record:
        """Measure ``policy``; a candidate that fails gives a record that says why, and no exception.

        Args:
            policy: What to measure.
            fidelity: How.
            baseline: The baseline it is measured for, if any; only noted in the record.
            parameters: The sampler's parameters, if any; only noted in the record.
            race: What it has to beat. A candidate that cannot is left alone before all samples are seen, and its record
                says so; None to see them all.
            worker: Who measures it; by default this process.

        Raises:
            InputError: If the job is wrong rather than the candidate: a student that cannot be built, an objective
                that returns no number, a disk without room.
        """
        torch.set_num_threads(self.threads)
        start = time.perf_counter()
        outcome = self._outcome(policy, fidelity, race)
        return Record(
            policy=policy,
            fidelity=fidelity,
            scores=outcome.scores,
            seconds=time.perf_counter() - start,
            worker=worker or f"{socket.gethostname()}:{os.getpid()}",
            error=outcome.error,
            baseline=baseline,
            parameters=parameters,
            weights=outcome.weights,
            samples=outcome.samples,
            misfits=outcome.misfits,
        )

    def build(self, policy: Policy, fidelity: Fidelity) -> CompressedNetwork:
        """The network of ``policy`` at ``fidelity``."""
        compressed = self.compressor.compress(policy, self.report)
        if fidelity == "ptq":
            return compressed
        return self.compressor.recover(compressed, self.report, self._training(fidelity))

    def _training(self, fidelity: Fidelity) -> Distillation:
        """How a network of that fidelity learns; a :class:`JobError` where the job does not say."""
        if fidelity == "recovered":
            return self.settings.recovery
        if self.settings.full is None:
            raise JobError("fidelity 'full' needs training.full_steps in the job, or CompressionSettings(full=...)")
        return self.settings.full

    def score(self, compressed: CompressedNetwork) -> dict[str, Score]:
        """Every objective's score of a network, on all validation samples."""
        return dict(self._raced(compressed, None).scores or {})

    @property
    def devices(self) -> list[Device]:
        """Those that objectives are about."""
        carried = (getattr(entry, "hardware", None) for entry in self.objectives)
        return list({device.name: device for device in carried if isinstance(device, Device)}.values())

    def _raced(self, compressed: CompressedNetwork, race: Race | None) -> _Outcome:
        """Scores, what is predicted first; and the samples seen, where those are not all."""
        write = partial(self.execution.artifact, compressed)
        view = View(self.space.task, compressed.policy, compressed.network, None, None, write)
        scores = {entry.name: recordable(entry.score(view)) for entry in self.objectives if entry.predicted}
        heat = None if race is None else race.heat(scores)
        view.outputs, view.targets = self._predict(compressed, heat)
        scores |= {entry.name: recordable(entry.score(view)) for entry in self.objectives if not entry.predicted}
        ordered = {entry.name: scores[entry.name] for entry in self.objectives}
        samples = None if heat is None else heat.stopped_after
        return _Outcome(ordered, samples=samples, misfits=view.misfits(self.devices))

    def _predict(self, compressed: CompressedNetwork, heat: Heat | None) -> tuple[Any, Any]:
        if self.measure == "simulator":
            enough = None if heat is None else heat.is_lost
            return self.space.task.predict(compressed.module, enough=enough)
        return self.execution.predict(compressed)

    def _unpruned(self, compressed: CompressedNetwork) -> CompressedNetwork:
        policy = compressed.policy
        blocks = {BLOCK + name: 0.0 for name in policy.dropped_blocks}
        return self.compressor.compress(Policy.build(dict(policy.student) or "teacher", blocks), self.report)

    def _outcome(self, policy: Policy, fidelity: Fidelity, race: Race | None) -> _Outcome:
        """Scores and stored weights, or why there are none."""
        try:
            if fidelity in SLICE_FIDELITIES:
                return self._tried(policy, SLICE_FIDELITIES.index(fidelity))
            compressed = self.build(policy, fidelity)
            measured = self._raced(compressed, race)
            if bad := non_finite(measured.scores or {}):
                return _Outcome(error=f"scores are finite numbers; got {bad}")
            weights = None if fidelity == "ptq" else compressed.save(self.directory / "artifacts")
        except InputError:
            raise  # the job is wrong, not the candidate
        except (Exception, SystemExit) as failure:  # whatever a candidate does must not end the search
            if isinstance(failure, OSError) and failure.errno in _NO_ROOM:
                raise RunError(f"cannot write {self.directory}: {failure.strerror}; make room and resume") from failure
            return _Outcome(error=_one_line(failure))
        return replace(measured, weights=weights)

    def _tried(self, policy: Policy, number: int) -> _Outcome:
        """What a student is worth after a slice of its training, by the task's own metric, and what it would cost."""
        student = dict(policy.student)
        module = self.compressor.student_after_slice(student, number, self.report)
        metric = self.space.task.metric
        outputs, targets = self.space.task.predict(module)
        view = View(self.space.task, policy, self.space.network(student), outputs, targets)
        scores = {entry.name: recordable(entry.score(view)) for entry in self.objectives if entry.predicted}
        scores[metric.name] = recordable(metric.score(outputs, targets))
        if bad := non_finite(scores):
            return _Outcome(error=f"scores are finite numbers; got {bad}")
        return _Outcome(scores, misfits=view.misfits(self.devices))

    @property
    def compressor(self) -> Compressor:
        """Made at first use, so that an evaluator travels light."""
        if self._compressor is None:
            store = StudentStore(self.directory / "students")
            self._compressor = Compressor(self.space, store, self.seed, self.settings)
        return self._compressor

    @property
    def execution(self) -> Execution:
        """Made at first use; it keeps a template for every architecture."""
        if self._execution is None:
            self._execution = Execution(self.space.task, self._unpruned, self.threads)
        return self._execution

    def __getstate__(self) -> dict[str, object]:
        """Without what the next process makes again."""
        return {**self.__dict__, "_compressor": None, "_execution": None, "report": None}


@dataclass(frozen=True)
class _Outcome:
    """The part of a record that the evaluation decides."""

    scores: Mapping[str, Score] | None = None
    weights: str | None = None
    samples: int | None = None
    error: str | None = None
    misfits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkBuilder:
    """The way from a record to its network.

    Attributes:
        evaluator: Of the run the record belongs to.
        record: Of a success.
    """

    evaluator: Evaluator
    record: Record

    @property
    def task(self) -> Task:
        """The problem the network answers."""
        return self.evaluator.space.task

    def __call__(self) -> CompressedNetwork:
        """The network: read back where it was stored, made again (the same, by its seed) otherwise.

        Raises:
            RunError: If the stored file is missing or damaged.
        """
        record, evaluator = self.record, self.evaluator
        if record.weights is None:
            return evaluator.build(record.policy, record.fidelity)
        whole = evaluator.compressor.train_student(dict(record.policy.student))
        network = whole.without(record.policy.dropped_blocks)
        return CompressedNetwork.load(evaluator.directory / "artifacts", record.weights, record.policy, network)


def _one_line(failure: BaseException) -> str:
    lines = str(failure).strip().splitlines() or [""]
    return f"{type(failure).__name__}: {lines[0]}"[:500]
