from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.network import Network
from kneepoint.spaces.tracing import as_node, copy_graph_module, split_inputs, tensors_of, trace
from kneepoint.tasks.errors import SpaceError

NetworkOf = Callable[[str], Network]
ExampleOf = Callable[[str], tuple[nn.Module, Any]]
BatchOf = Callable[[str, int], tuple[tuple[Any, ...], dict[str, Any]]]


def leaves(outputs: Any) -> list[Tensor]:
    return list(torch.utils._pytree.tree_leaves(outputs))


@pytest.mark.parametrize("size", [1, 3])
def test_the_graph_computes_what_the_module_does_for_any_batch(
    name: str, size: int, network_of: NetworkOf, example_of: ExampleOf, batch_of: BatchOf
) -> None:
    module, _ = example_of(name)
    args, kwargs = batch_of(name, size)
    with torch.no_grad():
        ours, expected = network_of(name).graph_module(*args, **kwargs), module(*args, **kwargs)
    assert [torch.equal(a, b) for a, b in zip(leaves(ours), leaves(expected), strict=True)] == [True] * len(
        leaves(ours)
    )


def test_a_copy_has_the_names_and_shares_the_tensors(name: str, network_of: NetworkOf) -> None:
    source = network_of(name).graph_module
    copy = copy_graph_module(source)
    read = [node for node in source.graph.nodes if node.op != "get_attr" or node.users]
    assert [node.name for node in copy.graph.nodes] == [node.name for node in read]
    shared = tensors_of(source)
    assert all(value is shared[key] for key, value in tensors_of(copy).items() if isinstance(value, nn.Parameter))


def test_editing_a_copy_leaves_the_source_alone(network_of: NetworkOf, batch_of: BatchOf) -> None:
    source = network_of("residual").graph_module
    args, _ = batch_of("residual", 2)
    before, code = source(*args), source.code

    def edit(graph: torch.fx.Graph) -> None:
        for node in graph.nodes:
            if node.op == "call_function" and node.name.startswith("relu"):
                node.replace_all_uses_with(node.args[0])

    other = copy_graph_module(source, edit, {"head.weight": torch.zeros(5, 12)})
    assert not torch.equal(other(*args), before)
    assert torch.equal(source(*args), before)
    assert source.code == code


def test_the_trace_leaves_no_in_place_operator_and_no_state(name: str, network_of: NetworkOf) -> None:
    for node in network_of(name).graph_module.graph.nodes:
        assert not (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable)


def test_tracing_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    module.train()
    module[1].eval()  # frozen by the user
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trace(module, torch.randn(1, 3))
    assert [part.training for part in module] == [True, False, True, True]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


class InPlace(nn.Module):
    """Every way to write in place that renaming alone gets right."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        z = y * 2
        y.mul_(3.0).add_(z)
        y.clamp_(min=0.0)
        w = F.dropout(y, 0.5, self.training)
        w += z
        return self.b(w) + w


def test_chains_of_in_place_operators() -> None:
    module, x = InPlace().eval(), torch.randn(5, 4)
    assert torch.equal(trace(module, x)(x), module(x))


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x * 2 if x.sum() > 0 else x


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.view(2, -1)


@pytest.mark.parametrize("module", [Branch(), Constant()])
def test_what_cannot_be_traced_is_refused_in_one_line(module: nn.Module) -> None:
    with pytest.raises(SpaceError, match=r"traceable by torch.export .* it said: ") as caught:
        trace(module, torch.randn(1, 4))
    assert "\n" not in str(caught.value)


def test_inputs_are_split_as_a_task_calls_its_model() -> None:
    x = torch.ones(1)
    assert split_inputs(x) == ((x,), {})
    assert split_inputs((x, x)) == ((x, x), {})
    assert split_inputs([x, x]) == ((x, x), {})
    assert split_inputs({"a": x}) == ((), {"a": x})


def test_a_constant_is_no_node() -> None:
    with pytest.raises(TypeError, match="expected a node of the graph, found 3"):
        as_node(3)
