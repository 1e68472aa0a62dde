from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kneepoint.deployment.input_independence import compute_once, constant_value
from kneepoint.spaces.tracing import copy_graph_module, operator_name, shape_of, tensors_of, trace

LENGTH = 4


class Net(nn.Module):
    """What a test computes of (samples, LENGTH) numbers and a table."""

    def __init__(self, compute: Any) -> None:
        super().__init__()
        self.compute = compute
        self.table = nn.Embedding(LENGTH, 3)
        self.register_buffer("places", torch.arange(LENGTH)[None])

    def forward(self, x: Tensor) -> Any:
        return self.compute(self, x)


def class_token(net: Any, x: Tensor) -> Tensor:
    return torch.cat([net.table.weight[:1, None, :1].expand(x.shape[0], 1, 1), x[:, :, None]], 1)


def token_types(net: Any, x: Tensor) -> Any:
    return net.table(net.places.expand(x.shape[0], -1)) + x[:, :, None]


def causal(net: Any, x: Tensor) -> Tensor:
    """As the Transformers library makes masks: every sample's places, looked up by number of sample and place."""
    places = net.places.expand(x.shape[0], -1)
    samples, rows = torch.arange(x.shape[0])[:, None, None, None], torch.arange(LENGTH)[None, None, :, None]
    seen = places[samples, rows] >= places[samples, torch.arange(LENGTH)[None, None, None]]
    restarts = torch.diff(places, prepend=places[:, :1] - 1, dim=-1) != 1
    same = restarts.cumsum(-1)[samples, rows] == 0
    return torch.where(seen & same, x[:, None, :, None], -1.0)


def padding(net: Any, x: Tensor) -> Tensor:
    samples, columns = torch.arange(x.shape[0])[:, None, None, None], torch.arange(LENGTH)[None, None, None]
    return (x > 0)[samples, columns] * 2.0


def reordered(net: Any, x: Tensor) -> Tensor:
    samples, columns = torch.arange(x.shape[0])[:, None], torch.tensor([[3, 1, 2, 0]])
    return x[samples, columns]


def numbers(net: Any, x: Tensor) -> Tensor:
    return x + torch.arange(x.shape[0])[:, None]


def over_samples(net: Any, x: Tensor) -> Tensor:
    ones = net.places.expand(x.shape[0], -1)
    result: Tensor = x * ones.cumsum(0)
    return result


def rotary(net: Any, x: Tensor) -> Tensor:
    angles = (net.table.weight[None, :, :1].expand(x.shape[0], -1, 1) @ net.places[:, None].float()).transpose(1, 2)
    result: Tensor = x[:, None] * angles.cos()
    return result


def returned(net: Any, x: Tensor) -> Any:
    return x, net.places.expand(x.shape[0], -1)


def merged(net: Any, x: Tensor) -> Tensor:
    result: Tensor = x.reshape(-1) + net.places.expand(x.shape[0], -1).reshape(-1)
    return result


@pytest.mark.parametrize(
    ("compute", "gone", "expansions"),
    [
        (class_token, {"arange"}, 1),
        (token_types, {"arange"}, 0),
        (causal, set(), 0),
        (padding, {"index"}, 0),
        (reordered, set(), 0),
        (numbers, set(), 0),
        (over_samples, set(), 1),
        (rotary, set(), 0),
        (returned, set(), 1),
        (merged, set(), 1),
    ],
)
def test_the_answers_stay_and_expansions_to_the_batch_go(compute: Any, gone: set[str], expansions: int) -> None:
    torch.manual_seed(0)
    module = trace(Net(compute).eval(), torch.randn(2, LENGTH))
    edited = copy_graph_module(module, lambda graph: compute_once(graph, tensors_of(module)))
    names = [operator_name(node) for node in edited.graph.nodes]
    assert not gone & set(names)
    wide = [node for node in edited.graph.nodes if operator_name(node) == "expand" and str(node.args[1]).count("size")]
    assert len(wide) == expansions
    for batch in (1, 3, 8):
        x = torch.randn(batch, LENGTH)
        torch.testing.assert_close(edited(x), module(x), rtol=0, atol=0)


def test_constants_are_those_of_no_input_no_batch_and_no_float() -> None:
    def mixed(net: Any, x: Tensor) -> Any:
        return net.places >= 2, net.table.weight * 2, x > 0, torch.arange(x.shape[0]), torch.rand(LENGTH)

    module = trace(Net(mixed), torch.randn(2, LENGTH))
    output = next(node for node in module.graph.nodes if node.op == "output")
    first, *others = output.all_input_nodes
    value = constant_value(first, tensors_of(module))
    assert value is not None
    assert value.tolist() == [[False, False, True, True]]
    assert shape_of(first) == (1, LENGTH)
    assert [constant_value(node, tensors_of(module)) for node in others] == [None] * 4
