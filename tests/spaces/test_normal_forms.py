from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kneepoint.spaces.network import Network
from kneepoint.spaces.normal_forms import normalize_
from kneepoint.spaces.tracing import operator_name, trace


class Products(nn.Module):
    """A parameter of shape (in, out), used as the function given says."""

    def __init__(self, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8))
        self.register_buffer("fixed", torch.randn(6, 8))
        self.linear = nn.Linear(6, 8)
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def times(m: Products, x: Tensor) -> Tensor:
    return x @ m.weight


def normalized(compute: Callable[..., Tensor], x: Tensor) -> tuple[list[str], frozenset[str]]:
    """Operators afterwards, and what was turned; the results are the same, at another batch."""
    module = Products(compute)
    graph_module = trace(module, x)
    turned = normalize_(graph_module)
    graph_module.recompile()
    wide = torch.cat([x, x + 1, x - 1])
    torch.testing.assert_close(graph_module(wide), module(wide))
    return [operator_name(node) for node in graph_module.graph.nodes if node.op == "call_function"], turned


@pytest.mark.parametrize(
    "compute",
    [
        lambda m, x: torch.addmm(m.bias, x, m.weight),
        lambda m, x: x @ m.weight,
        lambda m, x: torch.mm(x, m.weight),
        lambda m, x: (x @ m.weight) + (2 * x) @ m.weight,
    ],
)
def test_a_product_with_a_stored_matrix_is_a_layer(compute: Callable[..., Tensor]) -> None:
    operators, turned = normalized(compute, torch.randn(2, 6))
    assert "linear" in operators
    assert turned == {"weight"}
    assert not {"addmm", "matmul", "mm"} & set(operators)


@pytest.mark.parametrize(
    "compute",
    [
        lambda m, x: x @ m.fixed,
        lambda m, x: x @ m.weight + m.weight[0],
        lambda m, x: torch.addmm(m.bias, x, m.weight, alpha=2.0),
        lambda m, x: torch.addmm(x[:, :1], x, m.weight),
        lambda m, x: m.weight.t() @ x.t(),
    ],
)
def test_a_matrix_that_is_read_otherwise_stays(compute: Callable[..., Tensor]) -> None:
    _, turned = normalized(compute, torch.randn(2, 6))
    assert turned == frozenset()


def test_a_turned_parameter_shares_its_memory() -> None:
    module = Products(times)
    network = Network(module, torch.randn(2, 6))
    assert network.turned == {"weight"} == network.without([]).turned
    assert network.parameter_shapes["weight"] == (8, 6)
    with torch.no_grad():
        dict(network.graph_module.named_parameters())["weight"].fill_(2.0)
    assert module.weight.eq(2).all()


@pytest.mark.parametrize(
    "compute",
    [
        lambda m, x: m.linear(x.reshape(-1, 6)).reshape(x.shape[0], 5, 8),
        lambda m, x: torch.addmm(m.bias, x.view(-1, 6), m.weight).view(x.shape[0], 5, 8),
    ],
)
def test_tokens_do_not_join_the_batch(compute: Callable[..., Tensor]) -> None:
    assert normalized(compute, torch.randn(2, 5, 6))[0] == ["linear"]


@pytest.mark.parametrize(
    "compute",
    [
        lambda m, x: m.linear(x.reshape(-1, 6)).reshape(x.shape[0], 40),
        lambda m, x: m.linear(x.reshape(-1, 6)).reshape(x.shape[0], 5, 2, 4),
        lambda m, x: m.linear(x.reshape(-1, 6)) * 2,
    ],
)
def test_another_reshape_behind_a_layer_stays(compute: Callable[..., Tensor]) -> None:
    assert "reshape" in normalized(compute, torch.randn(2, 5, 6))[0]


def test_heads_leave_the_batch() -> None:
    def compute(m: nn.Module, x: Tensor) -> Tensor:
        y = x.transpose(0, 1)  # tokens first, as nn.MultiheadAttention has it
        return y.reshape(5, x.shape[0] * 3, 2).transpose(0, 1).reshape(x.shape[0], 3, 5, 2) * 2

    operators, _ = normalized(compute, torch.randn(2, 5, 6))
    assert [name for name in operators if name not in ("sym_size", "mul")] == ["transpose", "reshape", "permute"]


@pytest.mark.parametrize("sizes", [(2, 3, 4, 5), (6, 2, 2, 5), (3, 2, 20, 1)])
def test_a_reshape_that_mixes_axes_stays(sizes: tuple[int, ...]) -> None:
    def compute(m: nn.Module, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], 4, 30).transpose(1, 2).reshape(x.shape[0], *sizes) * 2

    operators, turned = normalized(compute, torch.randn(2, 5, 24))
    assert operators.count("reshape") == 2
    assert not turned
