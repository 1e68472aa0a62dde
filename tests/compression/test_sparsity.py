from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from kneepoint.compression.sparsity import read_through_mask, sparsity_mask
from kneepoint.spaces.policy import SPARSITIES
from kneepoint.tasks.errors import SpaceError

SHARES = {"50%": 0.5, "75%": 0.75, "90%": 0.9}


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Of linear layers and convolutions, with many ties."""
    shape = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return torch.randint(-3, 4, shape, generator=generator).float() * draw(st.sampled_from([1.0, 0.013]))


def sparsify(weight: Tensor, sparsity: str, importance: Tensor | None = None, axis: int = 1) -> Tensor:
    return weight * sparsity_mask(weight, sparsity, importance, axis)


@given(weight=weights(), name=st.sampled_from(list(SHARES)))
def test_shares_are_exact_and_take_the_smallest(weight: Tensor, name: str) -> None:
    mask = sparsity_mask(weight, name)
    assert (~mask).sum() == math.floor(SHARES[name] * weight.numel() + 0.5)
    if mask.any() and not mask.all():
        assert weight[~mask].abs().max() <= weight[mask].abs().min()


@given(weight=weights(), axis=st.integers(0, 1))
def test_two_of_every_four_inputs_stay(weight: Tensor, axis: int) -> None:
    mask = sparsity_mask(weight, "2:4", axis=axis)
    rows, values = mask.movedim(axis, -1), weight.abs().movedim(axis, -1)
    whole = rows.shape[-1] // 4 * 4
    assert rows[..., whole:].all()
    if whole:
        blocks, sizes = rows[..., :whole].unflatten(-1, (-1, 4)), values[..., :whole].unflatten(-1, (-1, 4))
        assert (blocks.sum(-1) == 2).all()
        smallest_left = torch.where(blocks, sizes, math.inf).min(-1).values
        largest_gone = torch.where(blocks, -1.0, sizes).max(-1).values
        assert (largest_gone <= smallest_left).all()


@given(weight=weights(), name=st.sampled_from(SPARSITIES), axis=st.integers(0, 1))
def test_sparsifying_twice_is_sparsifying_once(weight: Tensor, name: str, axis: int) -> None:
    once = sparsify(weight, name, axis=axis)
    assert torch.equal(sparsify(once, name, axis=axis), once)
    assert torch.equal(sparsity_mask(once, name, axis=axis), sparsity_mask(weight, name, axis=axis))


@given(weight=weights(), name=st.sampled_from(SPARSITIES), bits=st.sampled_from([2, 3, 4, 8]))
@settings(max_examples=50)
def test_zeros_survive_symmetric_quantization(weight: Tensor, name: str, bits: int) -> None:
    sparse = sparsify(weight, name)
    limit = 2 ** (bits - 1) - 1
    scale = sparse.abs().flatten(1).amax(1).clamp_min(1e-6).div(limit).view(-1, *[1] * (weight.dim() - 1))
    rounded = (sparse / scale).round().clamp(-limit, limit) * scale
    assert (rounded[~sparsity_mask(weight, name)] == 0).all()
    again = sparsity_mask(rounded, name)  # what recovery holds: everything outside of it is zero
    assert (rounded[~again] == 0).all()


def test_a_given_importance_decides() -> None:
    weight, importance = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[9.0, 1.0, 8.0, 2.0]])
    assert sparsify(weight, "2:4", importance).tolist() == [[1.0, 0.0, 3.0, 0.0]]
    assert sparsify(weight, "75%", importance).tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_dense_weights_are_handed_on() -> None:
    weight = torch.randn(3, 5)
    assert torch.equal(sparsify(weight, "dense"), weight)
    assert sparsity_mask(weight, "dense").all()
    depthwise = torch.randn(6, 1, 3, 3)
    assert torch.equal(sparsify(depthwise, "2:4"), depthwise)


def test_unknown_sparsities_are_refused() -> None:
    with pytest.raises(SpaceError, match="unknown sparsity '2:5'; did you mean '2:4'"):
        sparsify(torch.zeros(2, 4), "2:5")


def test_training_through_a_mask_leaves_zeros_alone() -> None:
    weight = nn.Parameter(sparsify(torch.randn(4, 8), "2:4"))
    mask = sparsity_mask(weight, "2:4")
    graph = fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_function(torch.nn.functional.linear, (x, graph.get_attr("weight")))
    graph.output(node)
    assert read_through_mask(graph, node, 1, "mask") is node.args[1]
    held = fx.GraphModule({"weight": weight, "mask": mask.float()}, graph)
    optimizer = torch.optim.AdamW(held.parameters(), lr=0.1, weight_decay=0.1)
    before = weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        held(torch.randn(16, 8)).square().sum().backward()
        optimizer.step()
    assert (weight[~mask] == 0).all()
    assert (weight[mask] != before[mask]).all()
