"""Gradients say how far small changes of layers move the outputs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, fx, nn

from kneepoint.compression.output_distance import output_distances
from kneepoint.compression.soft_targets import soft_loss
from kneepoint.spaces.tracing import copy_graph_module, trace

SAMPLES = 2000


def traced(module: nn.Module) -> fx.GraphModule:
    return trace(module, torch.zeros(1, 6, 5))


def nudged(module: fx.GraphModule, name: str, size: float) -> fx.GraphModule:
    weight = module.get_parameter(name).detach()
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return copy_graph_module(module, None, {name: weight + size * noise})


def layer_nodes(module: fx.GraphModule) -> list[str]:
    return [node.name for node in module.graph.nodes if "conv" in node.name or "linear" in node.name]


class Dense(nn.Module):
    """Classes at every position, or a single prediction."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.first, self.last, self.pooled = nn.Conv1d(6, 8, 3, padding=1), nn.Conv1d(8, 4, 1), pooled

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(torch.tanh(self.first(x)))
        return found.mean(dim=2) if self.pooled else found


def distances(
    pooled: bool, targets: Tensor, seed: int = 0, bytes_a_sample: int = 0
) -> tuple[Sequence[float], Sequence[float]]:
    """By gradients, and measured: of the first layer and of the last, each nudged alone."""
    torch.manual_seed(0)
    module = traced(Dense(pooled))
    inputs = torch.randn(SAMPLES, 6, 5)
    others = [nudged(module, "first.weight", 0.03), nudged(module, "last.weight", 0.03)]
    names = layer_nodes(module)
    halves = [(inputs[:700], targets[:700]), (inputs[700:], targets[700:])]
    told = output_distances(module, others, halves, names, seed, bytes_a_sample)
    with torch.no_grad():
        measured = [float(soft_loss(other(inputs), module(inputs), targets, 1.0)) for other in others]
    return [entry[name] for entry, name in zip(told, names, strict=True)], measured


@pytest.mark.parametrize(
    ("pooled", "targets"),
    [
        (True, torch.zeros(SAMPLES, dtype=torch.int64)),
        (False, torch.zeros(SAMPLES, 5, dtype=torch.int64)),
        (True, torch.zeros(SAMPLES, 4)),
        (False, torch.zeros(SAMPLES, 4, 5)),
    ],
    ids=["classes", "classes at positions", "numbers", "numbers at positions"],
)
def test_it_is_the_distance_that_is_measured(pooled: bool, targets: Tensor) -> None:
    told, measured = distances(pooled, targets)
    assert told == pytest.approx(measured, rel=0.25)


def test_large_batches_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kneepoint.compression.output_distance.MOST_HELD", 100_000)
    targets = torch.zeros(SAMPLES, dtype=torch.int64)
    told, measured = distances(True, targets, bytes_a_sample=1000)  # 100 samples each
    assert told == pytest.approx(measured, rel=0.25)
    assert told != distances(True, targets)[0]  # other labels were drawn


def test_the_seed_draws_the_labels() -> None:
    targets = torch.zeros(SAMPLES, dtype=torch.int64)
    first, second, other = (distances(True, targets, seed)[0] for seed in (0, 0, 1))
    assert first == second
    assert first != other


def test_what_is_not_changed_does_not_move_and_what_is_missing_neither() -> None:
    module = traced(Dense(True))
    pairs = [(torch.randn(8, 6, 5), torch.zeros(8, dtype=torch.int64))]
    names = layer_nodes(module)
    (told,) = output_distances(module, [copy_graph_module(module)], pairs, [*names, "elsewhere"], 0)
    assert told == dict.fromkeys([*names, "elsewhere"], 0.0)
