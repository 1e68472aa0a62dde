"""A view of one candidate of a digits-sized network, which is traced once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kneepoint.compression.compressor import Compressor
from kneepoint.compression.student_store import StudentStore
from kneepoint.objectives.view import View
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.tasks.residual_network import ResidualNet
from kneepoint.tasks.task import Task


@pytest.fixture(scope="session")
def space() -> JointSpace:
    """Digits-sized images, random weights and labels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        batches = [(torch.randn(32, 1, 12, 12), torch.randint(0, 10, (32,))) for _ in range(4)]
        return joint_space(Task(ResidualNet(8, 1).eval(), batches[0][0][:1], batches, batches), students=None)


@pytest.fixture(scope="session")
def task(space: JointSpace) -> Task:
    """The task of the space."""
    return space.task


@pytest.fixture(scope="session")
def view_of(space: JointSpace, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, float], View]:
    """The view of a uniform candidate: (bits, kept fraction); 16 bits at full width stand for the teacher."""
    made: dict[tuple[int, float], View] = {}
    folder: Path = tmp_path_factory.mktemp("students")
    compressor = Compressor(space, StudentStore(folder))

    def make(bits: int = 8, keep: float = 1.0) -> View:
        if (bits, keep) not in made:
            compressed = compressor.compress(space.policy(space.uniform(bits=bits, keep=keep)))
            outputs, targets = space.task.predict(compressed.module)
            made[bits, keep] = View(space.task, compressed.policy, compressed.network, outputs, targets)
        return made[bits, keep]

    return make
