"""Three small problems of which every point was measured, so that their true fronts are known.

    python -m benchmarks.search_tables               make what is missing; about 20 minutes on two cores
    python -m benchmarks.search_tables --only plain  one of them

A table holds the accuracy, the size and mostly the multiply-accumulates of every setting of a small space, as the real
pipeline measured them (nothing is trained after compression), together with what a search would spend: seconds of an
evaluation, of a price, of the sensitivities. Tables go to benchmarks/tables/. A run that is interrupted goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quantization_networks import InvertedResidual, RowTransformer
from kneepoint.objectives import Accuracy, MACs, Size
from kneepoint.objectives.objective import Objective
from kneepoint.search.job import Job
from kneepoint.search.job_advice import advice_of
from kneepoint.search.progress import Progress
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.samplers import anchors
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import STUDENT, joint_space
from kneepoint.tasks import digits
from kneepoint.tasks.metrics import accuracy
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import fit
from kneepoint.tasks.weight_cache import load_weights, save_weights

FOLDER = Path(__file__).parent / "tables"
_SAVED_EVERY = 500
_TIMED = 50
"""Settings whose evaluation, and whose price, is timed."""


class PlainNet(nn.Module):
    """Three convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 12, 24, 32)
        pairs = enumerate(itertools.pairwise(widths))
        self.layers = nn.Sequential(*(_block(inner, outer, 1 + (place > 0)) for place, (inner, outer) in pairs))
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (N, 1, H, W) to logits of shape (N, 10)."""
        logits: Tensor = self.head(self.layers(images).mean((2, 3)))
        return logits


class SmallDepthwiseNet(nn.Module):
    """A stem, one inverted residual with squeeze-and-excitation, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(1, 16, 2)
        self.block = InvertedResidual(16, 24, 2)
        self.head = nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (N, 1, H, W) to logits of shape (N, 10)."""
        logits: Tensor = self.head(self.block(self.stem(images)).mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Recipe:
    """A small problem.

    Attributes:
        build: The untrained teacher.
        steps: Of its training.
        weight_bits: Choices a layer.
        keep: Choices a group.
        costs: Objectives beside the accuracy. No latency: networks as small as these take what their kernels' launches
            take, whatever is done to them.
    """

    build: Callable[[], nn.Module]
    steps: int
    weight_bits: tuple[int, ...]
    keep: tuple[float, ...]
    costs: tuple[type[Objective], ...] = (MACs, Size)


RECIPES: Mapping[str, Recipe] = {
    "plain": Recipe(PlainNet, 1500, (2, 4, 8, 16), (1.0, 0.5, 0.25)),
    "depthwise": Recipe(SmallDepthwiseNet, 1500, (2, 8), (1.0, 0.5, 0.25)),
    "transformer": Recipe(lambda: RowTransformer(width=32, blocks=1, heads=2), 2000, (2, 4, 8), (1.0,), (Size,)),
}


@dataclass(frozen=True, eq=False)
class Table:
    """Every point of a small space.

    Attributes:
        name: Of the problem.
        counts: Choices of every parameter, by name; the student has one.
        objectives: (name, direction) pairs.
        values: (points, objectives) float64, the last parameter running fastest.
        scales: (worst, ideal) of every objective.
        saturating: Which of them say how well a candidate answers.
        predicted: Which of them follow from the setting alone.
        sensitivities: By parameter and choice.
        anchors: What the search measures first.
        seconds: Of one ``evaluation``, one ``price`` and all ``sensitivities``.
    """

    name: str
    counts: Mapping[str, int]
    objectives: Sequence[tuple[str, str]]
    values: np.ndarray[Any, np.dtype[np.float64]]
    scales: Sequence[tuple[float, float]]
    saturating: Sequence[bool]
    predicted: Sequence[bool]
    sensitivities: Mapping[str, Sequence[float]]
    anchors: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]

    def find(self, parameters: Mapping[str, Any]) -> list[float]:
        """The values of a setting."""
        row = 0
        for name, count in self.counts.items():
            row = row * count + int(parameters[name])
        return [float(value) for value in self.values[row]]

    @cached_property
    def losses(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(points, objectives): 0 the ideal, 1 the worst useful value."""
        worst, ideal = np.array(self.scales).T
        return np.asarray((ideal - self.values) / (ideal - worst))

    def save(self, folder: Path = FOLDER) -> None:
        """As NAME.npz: arrays, and the facts beside them as JSON."""
        folder.mkdir(exist_ok=True)
        facts = {key: value for key, value in vars(self).items() if key not in ("values", "losses")}
        np.savez_compressed(folder / f"{self.name}.npz", values=self.values, facts=np.array(json.dumps(facts)))

    @classmethod
    def load(cls, name: str, folder: Path = FOLDER) -> Table:
        """What :meth:`save` wrote."""
        with np.load(folder / f"{name}.npz", allow_pickle=False) as content:
            return cls(values=content["values"], **json.loads(str(content["facts"])))


def make(name: str, say: Callable[[str], None]) -> Table:
    """Measures every point of a problem, or what an earlier run left."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trials = _trials(name, Path(folder))
        start = time.perf_counter()
        advice = advice_of(trials, Progress())
        seconds = {"sensitivities": time.perf_counter() - start}
        space = trials.job.space
        settings = [
            {STUDENT: "teacher", **dict(zip(space.choices, choice, strict=True))}
            for choice in itertools.product(*map(range, space.choices.values()))
        ]
        say(f"{name}: {len(settings):,} settings")
        values, taken = _measured(name, trials, settings, say)
        seconds["evaluation"] = taken
        seconds["price"] = _timed(lambda setting: advice.price and advice.price([setting]), settings)
        return Table(
            name=name,
            counts=dict(space.choices),
            objectives=[(entry.name, entry.direction) for entry in trials.job.objectives],
            values=values,
            scales=[(axis.scale.worst, axis.scale.ideal) for axis in trials.axes],
            saturating=list(advice.saturating),
            predicted=[entry.predicted for entry in trials.job.objectives],
            sensitivities=dict(advice.contributions[0]),
            anchors=anchors(space),
            seconds=seconds,
        )


def _trials(name: str, folder: Path) -> Trials:
    recipe = RECIPES[name]
    base = digits.task(quick=True)
    task = Task(_teacher(name, recipe), base.example_input, base.train, base.validation, metric=accuracy, name=name)
    space = joint_space(task, recipe.weight_bits, recipe.keep, students=None)
    directory = RunDirectory(folder)
    job = Job.resolve(task, space, [Accuracy(), *(cost() for cost in recipe.costs)])
    directory.open_for(job)
    return Trials(job, directory)


def _teacher(name: str, recipe: Recipe) -> nn.Module:
    with seeded(0):
        model = recipe.build()
    file = f"search-table-{name}-{recipe.steps}.safetensors"
    if not load_weights(model, file):
        train = digits.task(quick=True).train
        fit(model, train, _loss, steps=recipe.steps, learning_rate=3e-3, weight_decay=1e-2, seed=0)
        save_weights(model, file)
    return model.eval()


def _measured(
    name: str, trials: Trials, settings: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], float]:
    """(settings, objectives), and the median seconds of one evaluation."""
    partial = FOLDER / f".{name}.partial.npy"
    rows = np.load(partial).tolist() if partial.exists() else []
    names = [entry.name for entry in trials.job.objectives]
    times = []
    for number in range(len(rows), len(settings)):
        record = trials.evaluator.evaluate(trials.job.space.policy(settings[number]))
        rows.append([record.values[entry] for entry in names])
        times.append(record.seconds)
        if (number + 1) % _SAVED_EVERY == 0:
            FOLDER.mkdir(exist_ok=True)
            np.save(partial, np.array(rows))
            say(f"{name}: {number + 1:,} of {len(settings):,}, {statistics.median(times):.3f} s each")
    draw = np.random.default_rng(0).integers(len(settings), size=_TIMED)  # in random order little is shared
    alone = [trials.evaluator.evaluate(trials.job.space.policy(settings[row])).seconds for row in draw]
    partial.unlink(missing_ok=True)
    return np.array(rows, np.float64), statistics.median(alone)


def _timed(call: Callable[[Mapping[str, Any]], Any], settings: Sequence[Mapping[str, Any]]) -> float:
    times = []
    for row in np.random.default_rng(1).integers(len(settings), size=_TIMED):
        start = time.perf_counter()
        call(settings[row])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _block(inner: int, outer: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU())


def _loss(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(module(images), labels)


def main() -> None:
    """Make the tables that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=RECIPES, action="append", help="this problem; repeatable")
    for name in parser.parse_args().only or RECIPES:
        if not (FOLDER / f"{name}.npz").exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                make(name, lambda line: print(line, flush=True)).save()


if __name__ == "__main__":
    main()
