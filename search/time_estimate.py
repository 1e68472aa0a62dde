"""About how long a search will take, from one timed forward pass of the teacher."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from kneepoint.compression.settings import CompressionSettings
from kneepoint.search.finalists import FINALISTS
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.batches import as_pair, leaves
from kneepoint.tasks.checks import explained, first_batch
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.task import Task

TRAINING_PASSES = 7.0
"""A step of training costs as much as so many forward passes of its network: 4 for large networks, 9 for small ones."""
SIMULATED_PASSES = 1.6
"""A forward pass through quantizers, in forward passes without them."""
CALIBRATION_PASSES = 5.0
"""Over the calibration samples: BatchNorm statistics, ranges and rounding, which are watched value by value."""
CHECK_PASSES = 3.0
"""Over the validation samples: the simulator, ONNX Runtime, and the test data of a finalist."""
SMALLEST_SHARE = 0.25
"""Of the teacher's time, however small a network is: what calling its operators takes."""
TRIAL_SECONDS = 0.1
"""Rewriting the graph of a candidate, and rounding its weights."""
EXPORT_SECONDS = 1.5
"""Writing and loading an artifact."""
_SLOW_SECONDS = 1.0  # a first pass that took longer is not repeated


@dataclass(frozen=True)
class Effort:
    """How much a search may do.

    Attributes:
        trials: Candidates to measure.
        minutes: Wall time for measuring them, or None.
        threads: Of torch.
        settings: How students are trained and compressed networks recover.
    """

    trials: int = 100
    minutes: float | None = None
    threads: int = 1
    settings: CompressionSettings = field(default_factory=CompressionSettings)


@dataclass(frozen=True)
class TimeEstimate:
    """About how long a search takes on this machine; within a factor of two where the assumptions hold.

    Attributes:
        seconds: The sum of ``parts``.
        parts: Seconds of measuring ``trials``, measuring ``baselines``, training ``students`` and recovering, exporting
            and checking ``finalists``.
        forward_ms: The timed forward pass of the teacher, milliseconds.
        batch: Its samples.
        validation_samples: What every candidate is measured on.
        assumptions: What the estimate rests on, in sentences.
    """

    seconds: float
    parts: Mapping[str, float]
    forward_ms: float
    batch: int
    validation_samples: int
    assumptions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The facts as ``kneepoint inspect --json`` prints them."""
        return {**asdict(self), "parts": dict(self.parts), "assumptions": list(self.assumptions)}


def estimate_time(space: JointSpace, effort: Effort, parameters: Mapping[str, int]) -> TimeEstimate | None:
    """About how long a search of ``space`` takes; None where the validation loader does not tell its length.

    Args:
        space: What is searched.
        effort: How much is done.
        parameters: Of every member of the student family, the teacher among them, by its description.

    Raises:
        TaskError: If the first validation batch cannot be loaded, or the model raises on it.
    """
    task = space.task
    inputs, _ = as_pair(first_batch(task.validation, "validation"), "validation")
    batch = len(leaves(inputs)[0])
    samples = _samples(task.validation, batch)
    if samples is None:
        return None
    pass_seconds = _forward_seconds(task, inputs, effort.threads)
    parts = _parts(_Pace(pass_seconds / batch, samples, _batch_size(task, batch)), space, effort, parameters)
    return TimeEstimate(
        seconds=sum(parts.values()),
        parts=parts,
        forward_ms=1e3 * pass_seconds,
        batch=batch,
        validation_samples=samples,
        assumptions=_assumptions(effort, pass_seconds, batch, len(parameters) - 1),
    )


@dataclass(frozen=True)
class _Pace:
    """Seconds of the teacher for one sample, and how many samples there are to measure on and in a training step."""

    sample_seconds: float
    validation: int
    train_batch: int

    def step(self, share: float) -> float:
        """Seconds of a training step of a network that takes ``share`` of the teacher's time; the teacher answers."""
        return self.train_batch * self.sample_seconds * (1 + TRAINING_PASSES * share)

    def passes(self, share: float, count: float) -> float:
        """Seconds of ``count`` passes over the validation samples."""
        return self.validation * self.sample_seconds * share * count


def _parts(pace: _Pace, space: JointSpace, effort: Effort, parameters: Mapping[str, int]) -> dict[str, float]:
    work = _relative_work(parameters)
    kept = statistics.mean(share**2 for share in space.keep) if space.teacher.groups else 1.0
    candidate = _time_share(statistics.mean(work.values()) * kept)
    calibration = effort.settings.calibration_samples * pace.sample_seconds * candidate * CALIBRATION_PASSES
    trial = pace.passes(candidate, SIMULATED_PASSES) + calibration + TRIAL_SECONDS
    search = trial * effort.trials
    students = [_time_share(share) for name, share in work.items() if name != "teacher"][: effort.trials]
    recovery = effort.settings.recovery.steps * pace.step(SIMULATED_PASSES * candidate)
    check = pace.passes(candidate, CHECK_PASSES) + EXPORT_SECONDS
    return {
        "trials": search if effort.minutes is None else min(search, 60 * effort.minutes),
        "baselines": search,  # as many random policies
        "students": sum(effort.settings.student.steps * pace.step(share) for share in students),
        "finalists": min(FINALISTS, effort.trials) * (recovery + check),
    }


def _relative_work(parameters: Mapping[str, int]) -> dict[str, float]:
    """Parameters over the teacher's, which within a family stand for multiply-accumulates."""
    return {name: count / parameters["teacher"] for name, count in parameters.items()}


def _time_share(work: float) -> float:
    return SMALLEST_SHARE + (1 - SMALLEST_SHARE) * work


def _forward_seconds(task: Task, inputs: Any, threads: int) -> float:
    """The fastest pass of a few, or the first where that took long: it pays for what happens once."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with explained("validation: the model raised on the first batch"), module_mode(task.model, training=False):
            first = _timed(task, inputs)
            return first if first > _SLOW_SECONDS else min(first, *(_timed(task, inputs) for _ in range(5)))
    finally:
        torch.set_num_threads(before)


def _timed(task: Task, inputs: Any) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        task.call(task.model, inputs)
    return time.perf_counter() - start


def _samples(loader: Any, batch: int) -> int | None:
    """Samples of a loader, from lengths alone: those it draws, where it says, and not those it drops at the end."""
    parts = (getattr(loader, name, None) for name in ("sampler", "dataset"))
    drawn = next((len(part) for part in parts if isinstance(part, Sized)), None)
    batches = _batches(loader)
    if drawn is None or batches is None:
        return drawn if batches is None else batches * batch
    return min(drawn, batches * batch)


def _batches(loader: Any) -> int | None:
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # a DataLoader of a stream has a length, which raises
        return None


def _batch_size(task: Task, default: int) -> int:
    """Samples of a training step, where the loader says; else as many as validation takes."""
    size = getattr(task.train, "batch_size", None)
    return size if isinstance(size, int) and size > 0 else default


def _assumptions(effort: Effort, pass_seconds: float, batch: int, students: int) -> tuple[str, ...]:
    trained = f"{min(students, effort.trials)} students are trained to their end, none stops, and " if students else ""
    return (
        f"the teacher takes {1e3 * pass_seconds:.3g} ms for {batch} samples on {effort.threads} thread(s), as it did",
        f"the time of a network falls with its parameters, down to {SMALLEST_SHARE:g} of the teacher's",
        f"a training step costs {TRAINING_PASSES:g} forward passes of its network, and one of the teacher",
        f"{trained}{min(FINALISTS, effort.trials)} finalists recover",
        "loading the data, the sampler's own time and other work on the machine do not count",
    )
