"""Small tasks on random data, one for every kind of network that compression has to get right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression.compressor import Compressor
from kneepoint.compression.distillation import Distillation
from kneepoint.compression.settings import CompressionSettings
from kneepoint.compression.student_store import StudentStore
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.spaces.network import Network
from kneepoint.tasks.metrics import mean_squared_error
from kneepoint.tasks.task import Task

SETTINGS = CompressionSettings(
    student=Distillation(steps=3, learning_rate=1e-3),
    recovery=Distillation(steps=4, learning_rate=1e-3),
    calibration_samples=24,
)


class Vision(nn.Module):
    """BatchNorm behind convolutions with and without bias, in front of one, without gain, behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=True)
        self.norm1 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8, affine=False)
        self.project = nn.Conv2d(8, 8, 1, bias=False)
        self.before = nn.BatchNorm2d(8)
        self.late = nn.Conv2d(8, 6, 3, stride=2, bias=False)
        self.twice = nn.Conv2d(6, 6, 1)
        self.up = nn.ConvTranspose2d(6, 4, 2, bias=False)
        self.norm3 = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4, 12)
        self.norm4 = nn.BatchNorm1d(12)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.norm1(self.stem(x)))
        x = x + self.project(F.hardswish(self.norm2(self.depthwise(x))))
        x = self.twice(F.relu(self.twice(self.late(F.relu(self.before(x))))))
        x = F.relu(self.norm3(self.up(x))).mean((2, 3))
        return self.head(self.drop(F.relu(self.norm4(self.hidden(x)))))


class Functional(nn.Module):
    """Functions on the root's own parameters, with BatchNorm and a constant."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 1)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))
        self.norm = nn.BatchNorm2d(6)
        self.constant = torch.rand(6)
        self.register_buffer("shift", torch.rand(6))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.norm(F.conv2d(self.first(x), self.weight))).mean((2, 3)) * self.constant + self.shift
        return self.head(x), x


class Text(nn.Module):
    """Keyword inputs out of order, integers among them, a tied embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor, input: Tensor) -> Any:  # noqa: A002 - users name arguments so
        x = self.embedding(ids) + input[:, None]
        return self.head(self.norm(x + self.down(F.gelu(self.up(x)))).mean(1))


def trained_looking(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 2.0)
                nn.init.normal_(part.bias)
    return module.eval()


def vision_task() -> Task:
    batches = [(torch.randn(8, 1, 8, 8), torch.randint(0, 3, (8,))) for _ in range(4)]
    return Task(trained_looking(Vision()), batches[0][0][:1], batches, batches, name="vision")


def functional_task() -> Task:
    batches = [(torch.randn(8, 2, 6, 6), torch.zeros(8)) for _ in range(3)]

    def loss(outputs: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
        return outputs[0].square().mean()

    model = trained_looking(Functional())
    return Task(model, batches[0][0][:1], batches, batches, metric=mean_squared_error, loss=loss, name="functional")


def text_task() -> Task:
    batches: list[Any] = [
        ({"input": torch.randn(8, 6), "ids": torch.randint(0, 9, (8, 4))}, torch.randint(0, 9, (8,))) for _ in range(3)
    ]
    example = {"ids": batches[0][0]["ids"][:1], "input": batches[0][0]["input"][:1]}
    return Task(Text().eval(), example, batches, batches, name="text")


TASKS: dict[str, Callable[[], Task]] = {"vision": vision_task, "functional": functional_task, "text": text_task}


@pytest.fixture(scope="session")
def space_of() -> Callable[[str], JointSpace]:
    """The joint space of an example task, traced once."""
    made: dict[str, JointSpace] = {}

    def make(name: str) -> JointSpace:
        if name not in made:
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(0)
                task = TASKS[name]()
            made[name] = joint_space(task, (2, 4, 8, 16, 32), (1.0, 0.5), "auto")
        return made[name]

    return make


@pytest.fixture(params=list(TASKS))
def name(request: pytest.FixtureRequest) -> str:
    """The name of every example task in turn."""
    return str(request.param)


@pytest.fixture
def network(name: str, space_of: Callable[[str], JointSpace]) -> Network:
    """Every example network in turn."""
    return space_of(name).teacher


@pytest.fixture
def compressor_of(space_of: Callable[[str], JointSpace], tmp_path: Path) -> Callable[..., Compressor]:
    """A new compressor of an example task, with short trainings."""

    def make(name: str, seed: int = 0, folder: str = "students") -> Compressor:
        return Compressor(space_of(name), StudentStore(tmp_path / folder), seed, SETTINGS)

    return make
