"""``JOB.yaml``: exactly what ``kneepoint.search`` takes, in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kneepoint.compression.distillation import RECOVERY, STUDENT_TRAINING, Distillation
from kneepoint.compression.ranges import RangeMethod
from kneepoint.compression.settings import CompressionSettings, QuantizationSettings, ScaleMethod
from kneepoint.objectives.objective import Objective, objective
from kneepoint.references import absolute_reference, load_reference
from kneepoint.search.callbacks import Callback
from kneepoint.search.evaluator import MeasuredBy
from kneepoint.search.job import Job
from kneepoint.search.workers.settings import Workers
from kneepoint.spaces.joint_space import joint_space
from kneepoint.spaces.ranking import Importance
from kneepoint.spaces.students import StudentFamily
from kneepoint.spaces.widths import CHANNEL_MULTIPLE
from kneepoint.tasks.errors import JobError, nearest
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import Precision

CALLBACKS = {
    "mlflow": "kneepoint.search.mlflow_callback:MlflowCallback",
    "tensorboard": "kneepoint.search.tensorboard_callback:TensorBoardCallback",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StudentsSection(_Section):
    """A student family: a builder and the values of its axes."""

    build: str
    axes: dict[str, list[int | float | str]]


class SpaceSection(_Section):
    """What may vary."""

    weight_bits: list[int | str] = [2, 4, 8, 16]
    keep: list[float | int] = [1.0, 0.75, 0.5, 0.25]
    students: Literal["auto"] | StudentsSection | None = "auto"
    blocks: bool = False
    channel_multiple: int = Field(default=CHANNEL_MULTIPLE, ge=1)


class DistillationSection(_Section):
    """What may be added to learning from the teacher; :class:`kneepoint.Distillation` says what each does."""

    warm_up: float = Field(default=STUDENT_TRAINING.warm_up, ge=0, le=1)
    accumulation: int = Field(default=STUDENT_TRAINING.accumulation, ge=1)
    precision: Precision = STUDENT_TRAINING.precision
    hidden_hints: float = Field(default=STUDENT_TRAINING.hidden_hints, ge=0)
    attention_hints: float = Field(default=STUDENT_TRAINING.attention_hints, ge=0)
    dynamic_weights: bool = STUDENT_TRAINING.dynamic_weights
    follow_gap: bool = STUDENT_TRAINING.follow_gap
    general_share: float = Field(default=STUDENT_TRAINING.general_share, ge=0, le=1)
    teacher_cache_mb: float = Field(default=STUDENT_TRAINING.teacher_cache_mb, ge=0)


class RecoverySection(DistillationSection):
    """The same for recovery, where what is usual is not the same."""

    attention_hints: float = Field(default=RECOVERY.attention_hints, ge=0)


class TrainingSection(_Section):
    """How students are trained and compressed networks recover.

    A temperature or alpha of null is what suits the kind of problem. ``full_steps`` asks for a last fidelity: the best
    of the recovered networks, trained for so many steps as they were for ``recovery_steps``.
    """

    student_steps: int = Field(default=CompressionSettings().student.steps, ge=1)
    student_learning_rate: float = Field(default=CompressionSettings().student.learning_rate, gt=0)
    recovery_steps: int = Field(default=CompressionSettings().recovery.steps, ge=1)
    recovery_learning_rate: float = Field(default=CompressionSettings().recovery.learning_rate, gt=0)
    temperature: float | None = Field(default=CompressionSettings().student.temperature, gt=0)
    alpha: float | None = Field(default=CompressionSettings().student.alpha, ge=0, le=1)
    weight_decay: float = Field(default=CompressionSettings().student.weight_decay, ge=0)
    recovery_temperature: float | None = Field(default=CompressionSettings().recovery.temperature, gt=0)
    recovery_alpha: float | None = Field(default=CompressionSettings().recovery.alpha, ge=0, le=1)
    recovery_weight_decay: float = Field(default=CompressionSettings().recovery.weight_decay, ge=0)
    calibration_samples: int = Field(default=CompressionSettings().calibration_samples, ge=1)
    importance: Importance = CompressionSettings().importance
    pruning_steps: int = Field(default=CompressionSettings().pruning_steps, ge=1)
    float_share: float = Field(default=CompressionSettings().float_share, ge=0, le=1)
    full_steps: int | None = Field(default=None, ge=1)
    distillation: DistillationSection = DistillationSection()
    recovery_distillation: RecoverySection = RecoverySection()

    def settings(self, quantization: QuantizationSettings) -> CompressionSettings:
        """As the compressor takes them."""
        recovery = Distillation(
            self.recovery_steps,
            self.recovery_learning_rate,
            self.recovery_temperature,
            self.recovery_alpha,
            self.recovery_weight_decay,
            **self.recovery_distillation.model_dump(),
        )
        student = Distillation(
            self.student_steps,
            self.student_learning_rate,
            self.temperature,
            self.alpha,
            self.weight_decay,
            **self.distillation.model_dump(),
        )
        return CompressionSettings(
            student,
            recovery,
            self.calibration_samples,
            quantization,
            self.importance,
            self.pruning_steps,
            self.float_share,
            None if self.full_steps is None else replace(recovery, steps=self.full_steps),
        )


class QuantizationSection(_Section):
    """The keys of ``quantization``."""

    weight_scale: ScaleMethod = QuantizationSettings().weight_scale
    activation_range: RangeMethod = QuantizationSettings().activation_range
    learned_bits: int = Field(default=QuantizationSettings().learned_bits, ge=0, le=8)
    bias_correction: bool = QuantizationSettings().bias_correction
    equalization: bool = QuantizationSettings().equalization

    def settings(self) -> QuantizationSettings:
        """As the compressor takes them."""
        return QuantizationSettings(**self.model_dump())


class WorkersSection(_Section):
    """Workers of a search; the values are checked where they are used."""

    count: int = Workers().count
    cpus: float | int | None = None
    gpus: float | int = Workers().gpus
    memory_gb: float | int | None = None
    silence_seconds: float | int | None = None
    timeout_seconds: float | int | None = None
    retries: int = Workers().retries


class JobFile(_Section):
    """The keys of a job file."""

    task: str
    objectives: list[str] = Field(min_length=1)
    space: SpaceSection = SpaceSection()
    constraints: list[str] = []
    sampler: str = "kneepoint"
    trials: int = 100
    minutes: float | int | None = None
    seed: int = 0
    threads: int | None = None
    training: TrainingSection = TrainingSection()
    quantization: QuantizationSection = QuantizationSection()
    measure: MeasuredBy = "simulator"
    workers: WorkersSection = WorkersSection()
    ray: str | None = None
    storage: str | None = None
    callbacks: list[str] = []
    out: str | None = None


def read_job_file(path: Path, overrides: Sequence[str] = ()) -> JobFile:
    """The checked content of a job file.

    Args:
        path: The YAML file.
        overrides: ``key=value`` or ``section.key=value``; values are YAML.

    Raises:
        JobError: If the file is missing or no YAML, or a key is unknown or has a wrong value.
    """
    if not path.is_file():
        raise JobError(f"there is no job file {path}")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError(f"{path} must be YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise JobError(f"{path} must hold keys and values such as 'task: file.py:function'")
    content = _with_sections(content)  # an override may be about one of their keys
    for override in overrides:
        _override(content, override)
    return parse_job(content, str(path))


def parse_job(content: Mapping[str, Any], where: str) -> JobFile:
    """The checked job.

    Raises:
        JobError: Naming the file, the key, what is wrong and the nearest known key.
    """
    try:
        return JobFile.model_validate(_with_sections(content))
    except ValidationError as error:
        raise JobError(f"{where}: {_explain(error)}") from error


def _with_sections(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a number of workers written out."""
    count = content.get("workers")
    is_number = isinstance(count, int) and not isinstance(count, bool)
    return {**content, "workers": {"count": count}} if is_number else dict(content)


def resumable(resolved: Mapping[str, Any]) -> JobFile:
    """The job file that a run directory's ``job.yaml`` was resolved from.

    Raises:
        JobError: If the run was given objects instead of references.
    """
    if resolved.get("task") is None:
        raise JobError(
            "this run was given a task object, which only the same kneepoint.search(...) call can give again; "
            "call it with the same out= to resume"
        )
    content = {key: value for key, value in resolved.items() if key in JobFile.model_fields}
    return parse_job(content, "job.yaml")


def resolve_job(job: JobFile, folder: Path, task: Task | None = None, run_task: bool = True) -> Job:
    """Load what the file refers to and check everything.

    Args:
        job: A checked file.
        folder: What its relative files are relative to.
        task: The task that ``job.task`` names, if it is loaded already.
        run_task: Whether to run the teacher over its data once, which checks the task.

    Raises:
        InputError: Naming what is wrong and the way out.
    """
    loaded = task or load_task(job.task, folder, job.threads)
    students = job.space.students
    family: Literal["auto"] | StudentFamily | None
    if isinstance(students, StudentsSection):
        reference = absolute_reference(students.build, folder)
        family = StudentFamily(load_reference(students.build, folder), students.axes, name=reference)
    else:
        family = students
    space = joint_space(
        loaded,
        job.space.weight_bits,
        [float(value) for value in job.space.keep],
        family,
        job.space.blocks,
        job.space.channel_multiple,
    )
    objectives = [_objective(entry, folder) for entry in job.objectives]
    references = {
        "task": absolute_reference(job.task, folder),
        "objectives": {
            entry.name: absolute_reference(text, folder)
            for entry, text in zip(objectives, job.objectives, strict=True)
            if isinstance(entry, Objective)
        },
        "callbacks": [absolute_reference(entry, folder) for entry in job.callbacks],
    }
    return Job.resolve(
        loaded,
        space,
        objectives,
        constraints=job.constraints,
        sampler=job.sampler,
        trials=job.trials,
        minutes=job.minutes,
        seed=job.seed,
        threads=job.threads or default_threads(),
        settings=job.training.settings(job.quantization.settings()),
        measure=job.measure,
        workers=job.workers.model_dump(),
        ray=job.ray,
        storage=job.storage,
        callbacks=[_callback(entry, folder) for entry in job.callbacks],
        references=references,
        run_task=run_task,
    )


def load_task(reference: str, folder: Path, threads: int | None = None) -> Task:
    """Call the function that ``reference`` names, with the job's threads: a teacher that it trains depends on them.

    Raises:
        JobError: If it is no function without arguments that returns a task.
    """
    function = load_reference(reference, folder)
    if not callable(function):
        raise JobError(f"task: {reference} must be a function that returns a kneepoint.Task")
    before = torch.get_num_threads()
    torch.set_num_threads(max(threads or default_threads(), 1))  # a wrong number is refused later, with the job
    try:
        task = function()
    finally:
        torch.set_num_threads(before)
    if not isinstance(task, Task):
        raise JobError(f"task: {reference} must return a kneepoint.Task; it returned {type(task).__name__}")
    return task


def default_threads() -> int:
    """Threads where the job says nothing: 1, as workers of a cluster have, so that a job gives the same anywhere."""
    return 1


def _objective(text: str, folder: Path) -> str | Objective:
    """A name as it is, a reference loaded."""
    if ":" not in text:
        return text
    loaded = load_reference(text, folder)
    if isinstance(loaded, type) and issubclass(loaded, Objective):
        return loaded()
    return loaded if isinstance(loaded, Objective) else objective(loaded)


def _callback(text: str, folder: Path) -> Callback:
    """``mlflow``, ``tensorboard``, or what a reference leads to: a callback, or a class or function that makes one."""
    if ":" not in text:
        if text not in CALLBACKS:
            raise JobError(f"unknown callback {text!r}; {nearest(text, CALLBACKS)}, or give file.py:name")
        text = CALLBACKS[text]
    loaded = load_reference(text, folder)
    made = loaded if isinstance(loaded, Callback) else loaded()
    if not isinstance(made, Callback):
        raise JobError(f"callbacks: {text} must be or make a kneepoint.Callback; got {type(made).__name__}")
    return made


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise JobError(f"--set reads key=value or section.key=value; got {override!r}")
    *sections, last = key.split(".")
    target = content
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise JobError(f"--set {override}: {section} has no keys of its own")
    try:
        target[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise JobError(f"--set {override}: the value must be YAML") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {place!r}; {nearest(str(first['loc'][-1]), _siblings(first['loc']))}"
    if first["type"] == "missing":
        return f"the key {place!r} is missing"
    return f"{place}: {first['msg']}; got {first['input']!r}"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "space": SpaceSection,
        "training": TrainingSection,
        "distillation": DistillationSection,
        "recovery_distillation": RecoverySection,
        "students": StudentsSection,
        "workers": WorkersSection,
    }
    model: type[BaseModel] = JobFile
    for part in location[:-1]:
        model = sections.get(str(part), model)
    return list(model.model_fields)
