"""A user's own folder: a task in a file, a job that names it, and one finished run of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from kneepoint.command_line import main

TASK = """
import torch
from torch import nn

import kneepoint as kp


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x):
        x = torch.relu(self.body(self.stem(x)))
        return self.head(x.mean(dim=(2, 3)))


def data(count, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (count,), generator=generator)
    x = torch.randn(count, 1, 6, 6, generator=generator) * 0.3
    for index, (row, column) in enumerate(((0, 0), (0, 3), (3, 0), (3, 3))):
        x[y == index, :, row : row + 3, column : column + 3] += 1.0
    return [(x[i : i + 32], y[i : i + 32]) for i in range(0, count, 32)]


def task():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
        train = data(128, 1)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(15):
            for x, y in train:
                optimizer.zero_grad()
                torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
                optimizer.step()
    return kp.Task(model, data(1, 5)[0][0], train, data(96, 2), data(64, 3), name="tiny")


def nan_task():
    found = task()
    with torch.no_grad():
        found.model.head.bias.fill_(float("nan"))
    return found


def empty_task():
    found = task()
    found.validation = []
    return found


def raising_task():
    found = task()
    found.metric = kp.metrics.as_metric(broken_metric)
    return found


def broken_metric(outputs, targets):
    raise ZeroDivisionError("metric broke")


class Branching(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


def untraceable_task():
    return kp.Task(Branching(), data(1, 5)[0][0], data(128, 1), data(96, 2))


def no_task():
    return 3


def share_of_zero(view):
    return float((view.outputs.argmax(dim=1) == 0).float().mean())


share_of_zero.direction = "minimize"


def build(width):
    return Net(width)
"""

JOB = """
task: tiny_task.py:task
space: {students: {build: "tiny_task.py:build", axes: {width: [2, 4]}}}
objectives: [accuracy, latency_ms@raspberry-pi-4b, size_mb]
trials: 6
training: {student_steps: 20, recovery_steps: 5}
"""


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder."""
    path = tmp_path_factory.mktemp("user")
    (path / "tiny_task.py").write_text(TASK)
    (path / "job.yaml").write_text(JOB)
    return path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs ``kneepoint ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["kneepoint", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Outcome(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def finished(folder: Path) -> Path:
    """A finished run of the job."""
    from kneepoint.front_door import run_file

    return run_file(folder / "job.yaml", folder / "finished", progress=False)
