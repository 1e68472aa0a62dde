"""What search_efficiency.py searches: tables of which every point is known, and jobs of the real pipeline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from optuna.distributions import BaseDistribution, IntDistribution

from benchmarks.quantization_networks import task_of
from benchmarks.search_tables import RECIPES, Table
from kneepoint.objectives import Accuracy, Latency, Size
from kneepoint.objectives.objective import Direction, Scale
from kneepoint.search.job import Job
from kneepoint.search.job_advice import advice_of
from kneepoint.search.pareto import hypervolume
from kneepoint.search.progress import Progress
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.samplers import anchors
from kneepoint.search.sampling.advice import Advice, Floats, Settings
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.spaces.students import StudentFamily
from kneepoint.tasks import digits
from kneepoint.tasks.batches import as_pair
from kneepoint.tasks.task import Task

REAL = ("residual", "depthwise-se", "row-transformer", "students")
TABULAR = tuple(f"table-{name}" for name in RECIPES)
DEVICE = "raspberry-pi-4b"
_VALIDATION = 720
"""Samples; a tenth of the quickstart's costs a search what it costs, and shows the same order."""
_TIMED = 200
_SECONDS = "sensitivity_seconds.txt"


class Problem(Protocol):
    """A space, its objectives, and what a search pays."""

    @property
    def name(self) -> str:
        """Of the problem."""

    @property
    def space(self) -> Mapping[str, BaseDistribution]:
        """Optuna's distributions."""

    @property
    def directions(self) -> Sequence[Direction]:
        """Of the objectives."""

    @property
    def anchors(self) -> Sequence[Mapping[str, Any]]:
        """What the default sampler measures first."""

    @property
    def evaluation_seconds(self) -> float:
        """Wall time of one full evaluation, the median; an evaluation-equivalent."""

    @property
    def sensitivity_seconds(self) -> float:
        """Wall time of the default sampler's sensitivities."""

    @property
    def price_seconds(self) -> float:
        """Spent on prices beyond the wall time of proposing."""

    @property
    def true_hypervolume(self) -> float | None:
        """Of the true front, where that is known."""

    def values(self, parameters: Mapping[str, Any]) -> list[float] | None:
        """Of every objective; None where the evaluation fails."""

    def losses(self, values: Sequence[float]) -> list[float]:
        """0 the ideal, 1 the worst useful value."""

    def identity(self, parameters: Mapping[str, Any]) -> Hashable:
        """What a setting stands for."""

    def advice(self) -> Advice:
        """What the default sampler begins with."""


@dataclass
class TableProblem:
    """A problem whose evaluations were all made before."""

    table: Table
    priced: int = 0

    @classmethod
    def named(cls, name: str) -> TableProblem:
        """Of the table ``table-NAME``."""
        return cls(Table.load(name.removeprefix("table-")))

    @property
    def name(self) -> str:  # noqa: D102 - see Problem
        return f"table-{self.table.name}"

    @property
    def space(self) -> Mapping[str, BaseDistribution]:  # noqa: D102
        return {name: IntDistribution(0, count - 1) for name, count in self.table.counts.items()}

    @property
    def directions(self) -> Sequence[Direction]:  # noqa: D102
        return ["maximize" if direction == "maximize" else "minimize" for _, direction in self.table.objectives]

    @property
    def anchors(self) -> Sequence[Mapping[str, Any]]:  # noqa: D102
        return [{name: entry[name] for name in self.table.counts} for entry in self.table.anchors]

    @property
    def evaluation_seconds(self) -> float:  # noqa: D102
        return self.table.seconds["evaluation"]

    @property
    def sensitivity_seconds(self) -> float:  # noqa: D102
        return self.table.seconds["sensitivities"]

    @property
    def price_seconds(self) -> float:  # noqa: D102
        return self.priced * self.table.seconds["price"]

    @property
    def true_hypervolume(self) -> float | None:  # noqa: D102
        return hypervolume(self.table.losses)

    def values(self, parameters: Mapping[str, Any]) -> list[float] | None:  # noqa: D102
        return self.table.find(parameters)

    def identity(self, parameters: Mapping[str, Any]) -> Hashable:  # noqa: D102
        return tuple(parameters[name] for name in self.table.counts)

    def losses(self, values: Sequence[float]) -> list[float]:  # noqa: D102
        return [Scale(*scale)(value) for scale, value in zip(self.table.scales, values, strict=True)]

    def advice(self) -> Advice:  # noqa: D102
        self.priced = 0
        table = self.table
        return Advice(
            scales=[Scale(*scale) for scale in table.scales],
            fronts=[list(range(len(table.objectives)))],
            saturating=table.saturating,
            contributions=[table.sensitivities if good else {} for good in table.saturating],
            limits=[1.0] * len(table.objectives),
            price=self._price,
        )

    def _price(self, settings: Settings) -> Floats:
        self.priced += len(settings)
        found = np.array([self.table.find(entry) for entry in settings])
        return np.where(np.array(self.table.predicted), found, np.nan)


@dataclass
class JobProblem:
    """A job of the real pipeline; what is measured once is kept in its run directory."""

    name: str
    trials: Trials
    _known: dict[str, list[float] | None] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str, folder: Path) -> JobProblem:
        """One of :data:`REAL`, whose run directory is in ``folder``."""
        torch.set_num_threads(1)
        space = _SPACES[name]()
        job = Job.resolve(space.task, space, [Accuracy(), Latency(DEVICE), Size()])
        directory = RunDirectory(folder / name)
        directory.open_for(job)
        return cls(name, Trials(job, directory))

    @property
    def space(self) -> Mapping[str, BaseDistribution]:  # noqa: D102
        return self.trials.job.space.distributions

    @property
    def directions(self) -> Sequence[Direction]:  # noqa: D102
        return [entry.direction for entry in self.trials.job.objectives]

    @property
    def anchors(self) -> Sequence[Mapping[str, Any]]:  # noqa: D102
        return anchors(self.trials.job.space)

    @property
    def evaluation_seconds(self) -> float:  # noqa: D102
        return statistics.median(record.seconds for record in self.trials.log.records[:_TIMED])

    @property
    def sensitivity_seconds(self) -> float:  # noqa: D102
        self.advice()
        return float((self.trials.directory.path / _SECONDS).read_text())

    @property
    def price_seconds(self) -> float:
        """Nothing: the wall time of proposing holds it."""
        return 0.0

    @property
    def true_hypervolume(self) -> float | None:
        """Nobody knows."""
        return None

    def values(self, parameters: Mapping[str, Any]) -> list[float] | None:  # noqa: D102
        policy = self.trials.job.space.policy(parameters)
        if policy.id not in self._known:
            record = self.trials.measure(policy, "ptq")
            known = record.values
            self._known[policy.id] = [known[entry.name] for entry in self.trials.job.objectives] if known else None
        return self._known[policy.id]

    def identity(self, parameters: Mapping[str, Any]) -> Hashable:  # noqa: D102
        return self.trials.job.space.policy(parameters).id

    def losses(self, values: Sequence[float]) -> list[float]:  # noqa: D102
        return [axis.scale(value) for axis, value in zip(self.trials.axes, values, strict=True)]

    def advice(self) -> Advice:  # noqa: D102
        kept, start = self.trials.directory.path / _SECONDS, time.perf_counter()
        found = advice_of(self.trials, Progress())
        if not kept.exists():  # later ones are only read
            kept.write_text(f"{time.perf_counter() - start}")
        return found


def _on(task: Task, **space: Any) -> JointSpace:
    """The space of a task whose validation data is the first of the real one's."""
    pairs = [as_pair(batch, "validation") for batch in task.validation]
    fewer = pairs[: -(-_VALIDATION // len(pairs[0][1]))]
    small = Task(task.model, task.example_input, task.train, fewer, metric=task.metric, loss=task.loss, name=task.name)
    return joint_space(small, **space)


_BITS, _KEEP = (2, 4, 8, 16), (1.0, 0.75, 0.5, 0.25)
_SPACES: Mapping[str, Callable[[], JointSpace]] = {
    "residual": lambda: _on(digits.task(), weight_bits=_BITS, keep=_KEEP, students=None),
    "depthwise-se": lambda: _on(task_of("depthwise"), weight_bits=_BITS, keep=_KEEP, students=None),
    "row-transformer": lambda: _on(task_of("transformer"), weight_bits=_BITS, keep=_KEEP, students=None),
    "students": lambda: _on(
        digits.task(),
        weight_bits=_BITS,
        keep=_KEEP,
        students=StudentFamily(digits.build_student, {"depth": [1, 2], "width": [0.25, 0.5, 0.75]}),
    ),
}


def problem_named(name: str, folder: Path) -> Problem:
    """A problem of :data:`TABULAR` or :data:`REAL`."""
    return TableProblem.named(name) if name in TABULAR else JobProblem.named(name, folder)
