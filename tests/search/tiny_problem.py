"""A problem that is measured in milliseconds; a module of its own, so that other processes can import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kneepoint.compression.distillation import Distillation
from kneepoint.compression.settings import CompressionSettings
from kneepoint.objectives import Accuracy, Latency, Size, View
from kneepoint.objectives.objective import Objective
from kneepoint.search.driver import Driver, Result
from kneepoint.search.job import Job
from kneepoint.search.progress import Observer
from kneepoint.search.run_directory import RunDirectory
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.spaces.students import StudentFamily
from kneepoint.tasks.metrics import Score
from kneepoint.tasks.task import Task

FAST = CompressionSettings(Distillation(6, 1e-2), Distillation(2, 1e-3), 64)


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.body(torch.relu(self.norm(self.stem(x)))))
        logits: Tensor = self.head(hidden.mean(dim=(2, 3)))
        return logits


def build_student(width: int) -> nn.Module:
    return Net(width)


def batches(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Four classes: which quarter of the image is bright."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (count,), generator=generator)
    x = torch.randn(count, 1, 6, 6, generator=generator) * 0.6
    for index, (row, column) in enumerate(((0, 0), (0, 3), (3, 0), (3, 3))):
        x[y == index, :, row : row + 3, column : column + 3] += 0.7
    return [(x[i : i + 32], y[i : i + 32]) for i in range(0, count, 32)]


def task() -> Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, train = Net(), batches(128, 1)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(15):
            for x, y in train:
                optimizer.zero_grad()
                torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
                optimizer.step()
    return Task(model.eval(), batches(1, 5)[0][0], train, batches(96, 2), batches(64, 3), name="tiny")


def space(tiny: Task | None = None, **changes: Any) -> JointSpace:
    students = StudentFamily(build_student, {"width": [4, 6]}, name="tiny_problem:build_student")
    arguments: dict[str, Any] = {"weight_bits": (4, 8, 16), "keep": (1.0, 0.5), "students": students, **changes}
    return joint_space(tiny or task(), **arguments)


class Fragile(Objective):
    """Counts parameters, and does what a test tells it to for some policies."""

    name = "fragile"

    def __init__(self, behaviour: Any) -> None:
        self.behaviour = behaviour

    def score(self, view: View) -> Score:
        return Score(self.behaviour(view))


def job(joint: JointSpace, **changes: Any) -> Job:
    arguments: dict[str, Any] = {"trials": 8, "settings": FAST, **changes}
    objectives = arguments.pop("objectives", [Accuracy(), Latency("raspberry-pi-4b"), Size()])
    return Job.resolve(joint.task, joint, objectives, **arguments)


def run(wanted: Job, out: Path, observer: Observer | None = None) -> Result:
    """As the front door runs a job."""
    directory = RunDirectory(out)
    directory.open_for(wanted)
    try:
        return Driver(wanted, directory, observer).run()
    finally:
        directory.unlock()
