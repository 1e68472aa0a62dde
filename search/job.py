"""Everything a run was asked to do, resolved and checked before anything is computed."""

from __future__ import annotations

import importlib.metadata
import numbers
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

from optuna.samplers import BaseSampler

from kneepoint.compression.settings import CompressionSettings
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.workload import Workload
from kneepoint.objectives.expressions import Condition
from kneepoint.objectives.objective import Objective, ObjectiveFunction
from kneepoint.objectives.registry import bind_objectives, objective_named
from kneepoint.objectives.view import model_of
from kneepoint.search.callbacks import Callback
from kneepoint.search.evaluator import MeasuredBy
from kneepoint.search.samplers import sampler_name, sampler_named
from kneepoint.search.storage_url import without_password
from kneepoint.search.workers.settings import Workers
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobError, nearest
from kneepoint.tasks.task import Task

_LIBRARIES = ("kneepoint", "torch", "onnx", "onnxruntime", "onnxscript", "optuna", "numpy", "scikit-learn", "moocore")
FITS = "fits a device of the job"
IDENTITY = (
    "fingerprint",
    "space",
    "objectives",
    "constraints",
    "seed",
    "threads",
    "training",
    "quantization",
    "measure",
    "devices",
    "conditions",
)
"""What must be equal for a run to be resumed; budgets may change."""


@dataclass(frozen=True)
class Job:
    """A checked job.

    Attributes:
        task: The problem.
        space: What may vary.
        objectives: What decides, in order.
        watched: Scored because a constraint reads them, without deciding.
        constraints: Must all hold.
        constraint_texts: As the user wrote them.
        sampler: A name or an Optuna sampler.
        trials: Candidates to measure.
        minutes: Wall time for measuring them, or None.
        seed: Of everything.
        threads: Of torch, while training and measuring.
        settings: How policies become networks.
        measure: What candidates are measured with.
        workers: How many candidates are measured at the same time, and what each may use.
        ray: The address of a Ray cluster that they run on; None for this machine.
        storage: The URL of a database that holds the trial log; None for a file.
        callbacks: Told of every trial.
        references: How the job file refers to the task, the students and custom objectives; empty for objects.
    """

    task: Task
    space: JointSpace
    objectives: tuple[Objective, ...]
    watched: tuple[Objective, ...]
    constraints: Condition
    constraint_texts: tuple[str, ...]
    sampler: str | BaseSampler
    trials: int
    minutes: float | None
    seed: int
    threads: int
    settings: CompressionSettings
    measure: MeasuredBy = "simulator"
    workers: Workers = field(default_factory=Workers)
    ray: str | None = None
    storage: str | None = None
    callbacks: tuple[Callback, ...] = ()
    references: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def resolve(
        cls,
        task: Task,
        space: JointSpace,
        objectives: Sequence[Objective | ObjectiveFunction | str],
        *,
        constraints: Sequence[str] = (),
        sampler: str | BaseSampler = "kneepoint",
        trials: int = 100,
        minutes: float | None = None,
        seed: int = 0,
        threads: int = 1,
        settings: CompressionSettings | None = None,
        measure: MeasuredBy = "simulator",
        workers: Workers | int | dict[str, Any] = 1,
        ray: str | None = None,
        storage: str | None = None,
        callbacks: Sequence[Callback] = (),
        references: dict[str, Any] | None = None,
        run_task: bool = True,
    ) -> Job:
        """Check the arguments of a search; nothing is computed but one pass of the teacher.

        The arguments are those of :func:`kneepoint.search`, and how a job file refers to the objects among them.
        Without ``run_task`` the pass of the teacher, which checks the task, is left out.

        Raises:
            InputError: Naming what is wrong and the way out.
        """
        if run_task:
            task.check()
        bound = bind_objectives(objectives, task)
        watched = _watched(constraints, bound, task)
        check_budget(trials, minutes, seed, threads)
        if measure not in get_args(MeasuredBy):
            raise JobError(f"unknown measure {measure!r}; {nearest(str(measure), get_args(MeasuredBy))}")
        sampler_named(sampler, space, seed)
        return cls(
            task=task,
            space=space,
            objectives=tuple(bound),
            watched=tuple(watched),
            constraints=Condition.of(constraints, [entry.name for entry in (*bound, *watched)]),
            constraint_texts=tuple(constraints),
            sampler=sampler,
            trials=int(trials),
            minutes=None if minutes is None else float(minutes),
            seed=int(seed),
            threads=int(threads),
            settings=settings or CompressionSettings(),
            measure=measure,
            workers=Workers.of(workers),
            ray=ray,
            storage=storage,
            callbacks=tuple(callbacks),
            references=references or {},
        )

    @property
    def scored(self) -> tuple[Objective, ...]:
        """Everything that is measured of a candidate."""
        return (*self.objectives, *self.watched)

    @property
    def devices(self) -> list[Device]:
        """The devices that objectives carry as ``hardware``, each once."""
        carried = (getattr(entry, "hardware", None) for entry in self.scored)
        return list({device.name: device for device in carried if isinstance(device, Device)}.values())

    @cached_property
    def tight_devices(self) -> list[Device]:
        """Those whose memory the fp32 teacher exceeds, so that not every candidate may fit them."""
        table = lower(self.space.teacher, Policy.build())
        return [device for device in self.devices if model_of(device).cost(Workload.of(table, device.fusion)).misfits]

    @property
    def constraint_names(self) -> list[str]:
        """A name for every comparison of the constraints, and one for fitting a device where that is a question."""
        texts = [comparison.text for comparison in self.constraints.comparisons]
        texts += [FITS] if self.tight_devices else []
        return [f"{index}: {text}" for index, text in enumerate(texts)]

    def to_json(self) -> dict[str, Any]:
        """The job as ``job.yaml`` holds it."""
        return {
            "schema": "kneepoint.job/1",
            "task": self.references.get("task"),
            "task_name": self.task.name,
            "space": {
                "weight_bits": list(self.space.weight_bits),
                "keep": list(self.space.keep),
                "blocks": self.space.blocks,
                "channel_multiple": self.space.channel_multiple,
                "students": self._students_json(),
            },
            "objectives": [
                self.references.get("objectives", {}).get(entry.name, entry.name) for entry in self.objectives
            ],
            "constraints": list(self.constraint_texts),
            "sampler": sampler_name(self.sampler),
            "trials": self.trials,
            "minutes": self.minutes,
            "seed": self.seed,
            "threads": self.threads,
            "training": self._training_json(),
            "quantization": asdict(self.settings.quantization),
            "measure": self.measure,
            "workers": self.workers.to_json(),
            "ray": self.ray,
            "storage": self.storage and without_password(self.storage),
            "callbacks": self.references.get("callbacks", []),
            "devices": {device.name: device.digest for device in self.devices},
            "conditions": {entry.name: entry.conditions for entry in self.scored if entry.conditions},
            "versions": {"python": platform.python_version(), **_versions()},
            "fingerprint": self.task.fingerprint(),
        }

    def _training_json(self) -> dict[str, Any]:
        student, recovery = self.settings.student, self.settings.recovery
        return {
            "student_steps": student.steps,
            "student_learning_rate": student.learning_rate,
            "recovery_steps": recovery.steps,
            "recovery_learning_rate": recovery.learning_rate,
            "temperature": student.temperature,
            "alpha": student.alpha,
            "weight_decay": student.weight_decay,
            "recovery_temperature": recovery.temperature,
            "recovery_alpha": recovery.alpha,
            "recovery_weight_decay": recovery.weight_decay,
            "calibration_samples": self.settings.calibration_samples,
            "importance": self.settings.importance,
            "pruning_steps": self.settings.pruning_steps,
            "float_share": self.settings.float_share,
            "distillation": student.techniques(),
            "recovery_distillation": recovery.techniques(),
            **self._full_training(),
        }

    def _full_training(self) -> dict[str, Any]:
        """Its steps; and all of it where it differs from recovery in more, which a job file cannot ask for."""
        full = self.settings.full
        if full is None:
            return {}
        alike = full == replace(self.settings.recovery, steps=full.steps)
        rest = {} if alike else {f"full_{name}": value for name, value in asdict(full).items()}
        return {**rest, "full_steps": full.steps}

    def _students_json(self) -> Any:
        students = self.space.students
        if students is None or students.name == "auto":
            return students and "auto"
        return {
            "build": students.name or None,
            "axes": {axis: list(values) for axis, values in students.axes.items()},
        }


def _watched(constraints: Sequence[str], objectives: Sequence[Objective], task: Task) -> list[Objective]:
    """Ready objectives that a constraint reads and nobody asked to optimize."""
    if isinstance(constraints, str):
        raise JobError(f"constraints is a list of conditions; got the text {constraints!r}: write it in brackets")
    known = {entry.name for entry in objectives}
    named = Condition.of(constraints).objectives
    return [objective_named(name, task) for name in named if name not in known]


def check_budget(trials: int, minutes: float | None, seed: int, threads: int) -> None:
    """Refuse numbers that no search can have.

    Raises:
        JobError: Naming the first of them.
    """
    for name, value, least in (("trials", trials, 1), ("seed", seed, 0), ("threads", threads, 1)):
        if not _is_whole(value) or value < least:
            raise JobError(f"{name} is a whole number of at least {least}; got {value!r}")
    if minutes is not None and not minutes > 0:
        raise JobError(f"minutes is above 0, or null; got {minutes!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def same_job(first: dict[str, Any], second: dict[str, Any]) -> str | None:
    """The first key in which two jobs differ so that one cannot go on with the other's run; None if there is none."""
    return next((key for key in IDENTITY if first.get(key) != second.get(key)), None)
