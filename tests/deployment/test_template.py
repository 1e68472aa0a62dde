from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression.compressor import Compressor
from kneepoint.compression.student_store import StudentStore
from kneepoint.deployment.runtime import open_session
from kneepoint.deployment.template import template_of
from kneepoint.deployment.writing import write
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.task import Task


def rows(net: Any, x: Tensor) -> Any:
    return net.a(x).flatten(2).softmax(-1).view(x.shape[0], -1, 6, 6)


def frames(net: Any, x: Tensor) -> Any:
    return net.a(torch.stack([x, 2 * x], 1).view(-1, 3, 6, 6)).view(x.shape[0], 2, 8, 6, 6).amax(1)


def scaled(net: Any, x: Tensor) -> Any:
    return net.a(x) * net.scale.view(1, -1, 1, 1)


class Body(nn.Module):
    """Two convolutions, and what a test puts between them."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.rand(8) + 0.5)
        self.between = between

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.b(F.relu(self.between(self, x)))).mean((2, 3)))


def score(outputs: Tensor, targets: Tensor) -> float:
    return float(outputs.mean())


@pytest.mark.parametrize(("between", "open_width"), [(rows, True), (frames, False), (scaled, True)])
def test_a_template_that_serves_a_pruned_network_computes_it(between: Any, open_width: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 6, 6)
    batches = [(x, torch.zeros(4, dtype=torch.long))]
    task = Task(Body(between).eval(), x[:1], batches, batches, metric=score)
    space = JointSpace(task, weight_bits=(16,), keep=(0.5, 1.0), students=None, channel_multiple=1)
    compressor = Compressor(space, StudentStore(tmp_path))
    whole, half = (compressor.compress(space.policy(space.uniform(bits=16, keep=keep))) for keep in (1.0, 0.5))
    assert sorted(half.kept) == ["a", "b"]
    template = template_of(whole, task.example_input, shared=True)
    assert template.serves(half) is open_width
    if open_width:
        (found,) = open_session(write(template, half).SerializeToString()).run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), half.module(x).detach(), rtol=1e-4, atol=1e-5)
