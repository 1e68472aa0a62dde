from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kneepoint.spaces import channel_flow
from kneepoint.spaces.channel_flow import layer_name
from kneepoint.spaces.flow_state import FlowState
from kneepoint.spaces.network import Network
from kneepoint.spaces.tracing import operator_name
from kneepoint.tasks.errors import SpaceError
from tests.spaces.cutting import assert_cut_equals_masked

NetworkOf = Callable[[str], Network]
BatchOf = Callable[[str, int], tuple[tuple[Any, ...], dict[str, Any]]]

GROUPS = {
    "residual": {"stem": 8, "a": 6, "c": 12},
    "fixed side": {"a": 6, "c": 7},
    "mobile": {"expand": 10, "squeeze": 4, "squeeze2": 3, "project": 6},
    "dense": {"stem": 6, "conv1": 4, "conv2": 5},
    "unet": {"down1": 4, "down2": 8, "up": 5, "merge": 6},
    "flattened": {"conv": 4, "a": 6},
    "sequence": {"lift": 6},
    "text": {"q": 2, "up": 16},
    "functional": {"weight": 6, "matrix": 5},
    "blocks": {"stem": 2, "free": 9, "to_norm": 2, "to_split": 3, "tail": 5, "transposed": 4},
    "tokens": {"a": 8, "b": 6, "c": 6, "mix": 9},
    "views": {"next": 4},
}


def some(size: int, generator: torch.Generator) -> Tensor:
    count = int(torch.randint(1, size + 1, (1,), generator=generator))
    return torch.randperm(size, generator=generator)[:count].sort().values


def test_the_groups_are_those_a_person_would_name(name: str, network_of: NetworkOf) -> None:
    assert network_of(name).groups == GROUPS[name]


@pytest.mark.parametrize("seed", range(2))
def test_a_cut_network_computes_what_the_masked_one_does_group_by_group(
    name: str, seed: int, network_of: NetworkOf, batch_of: BatchOf
) -> None:
    network = network_of(name)
    generator = torch.Generator().manual_seed(seed)
    for group, size in network.groups.items():
        assert_cut_equals_masked(network, {group: some(size, generator)}, batch_of(name, 3))


def test_a_cut_network_computes_what_the_masked_one_does_with_one_channel_everywhere(
    name: str, network_of: NetworkOf, batch_of: BatchOf
) -> None:
    network = network_of(name)
    assert_cut_equals_masked(network, {group: torch.tensor([0]) for group in network.groups}, batch_of(name, 2))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("example", ["residual", "dense", "mobile"])
def test_any_kept_sets_of_all_groups_at_once(
    example: str, data: st.DataObject, network_of: NetworkOf, batch_of: BatchOf
) -> None:
    network = network_of(example)
    kept = {
        group: torch.tensor(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
        for group, size in network.groups.items()
    }
    assert_cut_equals_masked(network, kept, batch_of(example, 2))


def test_every_layer_is_free_or_has_a_reason(name: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    for operation in network.operations:
        if operation.kind in ("conv", "linear"):
            layout = network.flow.parameters[operation.weight][0]
            free = any(segment.group for segment in layout)
            assert free != (operation.layer in network.flow.fixed)


@pytest.mark.parametrize(
    ("example", "layer", "reason"),
    [
        ("residual", "head", "it is an output of the network"),
        ("fixed side", "b", "it meets a tensor whose channels are fixed"),
        ("fixed side", "map", "it has one channel"),
        ("flattened", "mixed", "works across it"),
        ("sequence", "first", "it depends on fixed channels"),
        ("sequence", "again", "it meets|it depends on fixed"),
        ("text", "down", "fixed"),
        ("blocks", "shared", "operator layer_norm takes one mean over all of it"),
        ("tokens", "pooled", "operator max_pool1d works across it"),
        ("views", "conv", "slice"),
    ],
)
def test_the_reason_is_named(example: str, layer: str, reason: str, network_of: NetworkOf) -> None:
    fixed = network_of(example).flow.fixed
    assert any(part in fixed[layer] for part in reason.split("|")), fixed


def test_layers_carry_the_name_of_their_weight() -> None:
    assert layer_name("stem.0.weight") == "stem.0"
    assert layer_name("matrix") == "matrix"


class WithDepthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.expand = nn.Conv2d(8, 12, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(12)
        self.project = nn.Conv2d(12, 8, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(8)
        self.side = nn.Conv2d(8, 4, 1)
        self.last = nn.Conv2d(12, 6, 3)
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.stem_norm(self.stem(x)))
        y = torch.relu(self.expand_norm(self.expand(x)))
        y = torch.relu(self.depthwise_norm(self.depthwise(y)))
        x = x + self.project_norm(self.project(y))
        z = self.last(torch.cat([x, self.side(x)], dim=1))
        return self.head(nn.functional.adaptive_avg_pool2d(z, 2).flatten(1))


def torch_pruning_groups(model: nn.Module, example: Tensor) -> set[frozenset[tuple[str, int]]]:
    """(layer, axis of its weight) of every group, as another library finds them."""
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, example_inputs=example)
    names = {module: name for name, module in model.named_modules()}
    found = set()
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        members = set()
        for dependency, _ in group:
            layer = dependency.target.module
            if layer in names:
                reads = dependency.handler in (tp.prune_conv_in_channels, tp.prune_linear_in_channels)
                depthwise = getattr(layer, "groups", 1) > 1
                members.add((names[layer], 1 if reads and not depthwise else 0))
        found.add(frozenset(members))
    return found


def test_torch_pruning_finds_the_same_groups() -> None:
    model, example = WithDepthwise().eval(), torch.randn(1, 3, 8, 8)
    network = Network(model, example)
    ours: dict[str, set[tuple[str, int]]] = {group: set() for group in network.groups}
    for parameter, layouts in network.flow.parameters.items():
        for axis, layout in enumerate(layouts):
            for segment in layout:
                if segment.group is not None and parameter.endswith(".weight"):
                    ours[segment.group].add((layer_name(parameter), axis))
    theirs = torch_pruning_groups(model, example)
    output = frozenset({("head", 0)})
    assert {frozenset(members) for members in ours.values()} == theirs - {output}
    assert output in theirs


def test_the_trace_knows_every_operator_by_its_usual_name(network_of: NetworkOf) -> None:
    nodes = network_of("views").graph_module.graph.nodes
    assert {"batch_norm", "conv2d", "linear"} <= {operator_name(node) for node in nodes}


def test_a_rule_that_fails_names_the_operator_and_where_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(flow: FlowState, node: torch.fx.Node) -> str:
        raise AttributeError("no shape")

    monkeypatch.setitem(channel_flow._RULES, "relu", fails)
    with pytest.raises(SpaceError, match=r"operator aten.relu.default cannot .*node relu, module '1.*no shape"):
        Network(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), torch.randn(1, 4))


@pytest.mark.parametrize("first", [False, True])
def test_transformer_layers_are_traced(first: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=first, norm_first=first)
    network = Network(nn.Sequential(layer, nn.Linear(16, 2)).eval(), torch.randn(2, 5, 16))
    assert network.groups == {"0.self_attn.in_proj_weight": 2, "0.linear1": 24}
    batch: Any = ((torch.randn(2, 5, 16),), {})
    kept = {"0.self_attn.in_proj_weight": torch.tensor([1]), "0.linear1": torch.arange(24)[::2]}
    assert_cut_equals_masked(network, kept, batch)
