"""Which residual blocks are found, and that a network without them computes what the one with silenced blocks does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import copy_graph_module
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.residual_network import ResidualNet

NetworkOf = Callable[[str], Network]


class PreActivation(nn.Module):
    """BatchNorm and relu in front of the convolutions; one BatchNorm right behind the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(6)
        self.conv1, self.conv2 = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.Conv2d(6, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(self.norm1(x)))
        added: Tensor = x + self.conv2(F.relu(self.norm2(hidden)))
        return added


class PreActivationNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(PreActivation(), PreActivation())
        self.last = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.last(self.drop(self.blocks(self.stem(x))))).mean((2, 3)))


class EncoderLayer(nn.Module):
    """A transformer's layer, norms first, with a mask from outside and a scale of its own behind the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = nn.ModuleDict({name: nn.Linear(8, 8) for name in "qkvo"})
        self.scale = nn.Parameter(torch.rand(8))
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, d = x.shape
        y = self.norm1(x)
        q, k, v = (self.attention[name](y).view(n, t, 2, 4).transpose(1, 2) for name in "qkv")
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(n, t, d)
        x = x + self.attention["o"](mixed) * self.scale
        added: Tensor = self.mlp(self.norm2(x)) + x
        return added


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(), EncoderLayer()])
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        mask = (x.sum(-1) < 3)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x.mean(1))


class Nested(nn.Module):
    """A block around two others (one of a single layer), all of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 3, padding=1)])
        self.outer = nn.Conv1d(4, 4, 1)
        self.head = nn.Conv1d(4, 2, 1)

    def forward(self, x: Tensor) -> Any:
        y = F.relu(self.outer(x))
        y = y + torch.tanh(self.inner[0](y))
        y = y + self.inner[1](y)
        return self.head(x + y)


class NotDroppable(nn.Module):
    """Sums that look like a block's."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.main = nn.Conv1d(4, 6, 1), nn.Conv1d(4, 6, 1)
        self.shared, self.after = nn.Conv1d(6, 6, 1), nn.Conv1d(6, 6, 1)
        self.broadcast = nn.Conv1d(6, 1, 1)
        self.scaled = nn.Conv1d(6, 6, 1)
        self.head = nn.Conv1d(6, 2, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.main(x) + self.project(x)  # neither side can stand for the sum
        x = x + torch.sigmoid(x)  # no layer
        half = F.relu(self.shared(x))
        x = x + self.after(half)  # half of it is computed for others
        x = x + self.broadcast(x)  # another shape
        x = torch.add(x, self.scaled(x), alpha=2)  # not a plain sum
        return self.head(x + x), half


class Products(nn.Module):
    """Layers written as products with a stored matrix, as GPT-2 has them, and a block of products without one."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ParameterDict({"weight": nn.Parameter(torch.randn(4, 6)), "bias": nn.Parameter(torch.randn(6))})
        self.down = nn.ParameterDict({"weight": nn.Parameter(torch.randn(6, 4))})
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        x = x + F.gelu(torch.addmm(self.up["bias"], x, self.up["weight"])) @ self.down["weight"]
        x = x + torch.softmax(x @ x.transpose(0, 1), -1) @ x
        return self.head(x)


class Shared(nn.Module):
    """One module called twice, and functions on the root's own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(4, 4)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        x = x + F.relu(self.f(x))
        x = x + F.relu(self.f(x))
        x = x + self.b(F.relu(self.a(x)))
        return self.head(x)


EXAMPLES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "pre-activation": (PreActivationNet, (3, 6, 6), ["blocks.0", "blocks.1"]),
    "post-activation": (
        lambda: ResidualNet(4, 2),
        (1, 12, 12),
        ["stages.0.0", "stages.0.1", "stages.1.1", "stages.2.1"],
    ),
    "encoder": (
        Encoder,
        (5, 8),
        ["layers.0.attention", "layers.0.mlp", "layers.1.attention", "layers.1.mlp"],
    ),
    "nested": (Nested, (4, 5), ["inner.0", "inner.1", "add_2"]),
    "not droppable": (NotDroppable, (4, 5), []),
    "products": (Products, (4,), ["add"]),
    "shared": (Shared, (4,), ["f", "add_1", "add_2"]),
}


@pytest.fixture(scope="module", params=list(EXAMPLES))
def example(request: pytest.FixtureRequest) -> Iterator[tuple[Network, Tensor, list[str]]]:
    build, shape, blocks = EXAMPLES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build().eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                part.running_mean.normal_()
                nn.init.normal_(part.bias)
        yield Network(module, torch.randn(1, *shape)), torch.randn(3, *shape), blocks


def silenced(network: Network, blocks: list[str]) -> fx.GraphModule:
    """The whole network, with the branch of every one of ``blocks`` times zero."""

    def edit(graph: fx.Graph) -> None:
        nodes = {node.name: node for node in graph.nodes}
        for name in blocks:
            block = network.blocks[name]
            addition = nodes[block.addition]
            (branch,) = (side for side in addition.args[:2] if side is not nodes[block.skip])
            with graph.inserting_before(addition):
                zero = graph.call_function(torch.mul, (branch, 0.0))
            addition.args = tuple(zero if side is branch else side for side in addition.args)

    return copy_graph_module(network.graph_module, edit)


def same(a: Any, b: Any) -> bool:
    return all(
        torch.allclose(x, y, atol=1e-6)
        for x, y in zip(torch.utils._pytree.tree_leaves(a), torch.utils._pytree.tree_leaves(b), strict=True)
    )


def test_blocks_are_found_and_named(example: tuple[Network, Tensor, list[str]]) -> None:
    network, _, blocks = example
    assert list(network.blocks) == blocks


def test_a_network_without_blocks_computes_what_silenced_blocks_do(
    example: tuple[Network, Tensor, list[str]],
) -> None:
    network, x, blocks = example
    before = network.graph_module(x)
    for chosen in ([], *([name] for name in blocks), blocks[:1] + blocks[2:], blocks):
        reduced = network.without(chosen)
        assert same(reduced.graph_module(x), silenced(network, chosen)(x))
        names = {node.name for node in network.graph_module.graph.nodes}
        assert {node.name for node in reduced.graph_module.graph.nodes} <= names
        assert all(value is network.tensors()[name] for name, value in reduced.tensors().items())
    assert same(network.graph_module(x), before)


def test_what_remains_has_the_names_it_had(example: tuple[Network, Tensor, list[str]]) -> None:
    network, x, blocks = example
    reduced = network.without(blocks)
    assert set(reduced.layers) <= set(network.layers)
    assert all(network.groups[group] == size for group, size in reduced.groups.items())
    assert not reduced.blocks
    policy = Policy.build(keep=dict.fromkeys(reduced.groups, 0.5))
    kept = {group: torch.arange(count) for group, count in reduced.channels(policy).items()}
    cut(reduced, kept)(x)  # its sizes fit together


def test_a_reduced_network_is_made_once_and_accepts_the_policies_of_the_whole_one() -> None:
    network = Network(ResidualNet(4, 2).eval(), torch.randn(1, 1, 12, 12))
    policy = Policy.build(
        keep={"block:stages.0.1": 0.0, "stages.0.1.conv1": 0.5, "stem": 0.5},
        layers={"stages.0.1.conv2": LayerPolicy.of_bits(8), "head": LayerPolicy.of_bits(8)},
    )
    reduced = network.without(policy.dropped_blocks)
    assert reduced is network.without(["stages.0.1"]) is reduced.without(["stages.0.1"]) is reduced.without([])
    assert network.without([]) is network
    assert reduced.without(["stages.1.1"]) is network.without(["stages.0.1", "stages.1.1"])
    reduced.check(policy)
    assert lower(network, policy) == lower(reduced, policy)
    assert "stages.0.1.conv1" not in reduced.channels(policy)
    assert reduced.channels(policy)["stem"] == 2


def test_the_price_is_that_of_the_smaller_network() -> None:
    network = Network(ResidualNet(4, 2).eval(), torch.randn(1, 1, 12, 12))
    whole, less = lower(network, Policy.build()), lower(network, Policy.build(keep={"block:stages.0.1": 0.0}))
    convolutions = 2 * 4 * 4 * 9
    assert whole.parameters - less.parameters == convolutions + 2 * 4
    assert whole.macs - less.macs == convolutions * 12 * 12
    assert {operator.name for operator in whole.operators} - {operator.name for operator in less.operators} == {
        "stages.0.1.conv1",
        "stages.0.1.conv2",
        "add_1",
        "relu_3",
    }


def test_dropping_the_outer_block_takes_the_inner_ones_along() -> None:
    network = Network(Nested().eval(), torch.randn(1, 4, 5))
    outer = network.without(["add_2"])
    assert not outer.blocks
    assert outer.without(["inner.0"]) is outer
    assert list(outer.layers) == ["head"]


def test_unknown_blocks_are_named_with_the_nearest(network_of: NetworkOf) -> None:
    network = Network(ResidualNet(4, 1).eval(), torch.randn(1, 1, 12, 12))
    with pytest.raises(SpaceError, match=r"no residual block 'stages\.0'; did you mean 'stages\.0\.0'\?"):
        network.check(Policy.build(keep={"block:stages.0": 0.0}))
    with pytest.raises(SpaceError, match=r"no residual block 'nothing'"):
        network.without(["nothing"])
    assert not network_of("unet").blocks


def test_a_block_may_begin_at_the_networks_input(network_of: NetworkOf) -> None:
    network = network_of("fixed side")
    assert [block.skip for block in network.blocks.values()] == list(network.inputs)
    reduced = network.without(network.blocks)
    assert copy.copy(list(reduced.layers)) == ["map", "c", "head"]
