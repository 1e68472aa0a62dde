from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.masking import masked
from kneepoint.spaces.network import Network
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import copy_graph_module

HEADS, DEPTH, TOKENS = 4, 3, 5
WIDTH = HEADS * DEPTH


class Attention(nn.Module):
    """Projections around the product that the function given computes from them."""

    def __init__(self, compute: Callable[[Attention, Tensor, Tensor, Tensor], Tensor], shared: int = HEADS) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, WIDTH), nn.Linear(8, shared * DEPTH), nn.Linear(8, shared * DEPTH)
        self.out = nn.Linear(WIDTH, 6)
        self.bias, self.table = nn.Parameter(torch.randn(HEADS, 1, 1)), nn.Parameter(torch.randn(7, HEADS))
        self.compute, self.shared = compute, shared

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, DEPTH)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed: Tensor = self.out(self.compute(self, q, k, v).transpose(1, 2).flatten(2))
        return mixed


def plain(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def biased(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(m.bias * torch.ones(TOKENS, TOKENS)).unsqueeze(0))


def looked_up(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    places = (torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)).clamp(0, 6)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=m.table[places].permute(2, 0, 1).unsqueeze(0))


def spelled_out(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(2, 3) + m.bias).softmax(-1) @ v


def by_einsum(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhts,bhsd->bhtd", torch.einsum("bhtd,bhsd->bhts", q, k).softmax(-1), v)


def implicit_einsum(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhts, bhsd -> bhtd", torch.einsum("bhtd,bhsd->bhts", q, k).softmax(-1), v)


def rotated(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    angles = torch.arange(TOKENS * DEPTH, dtype=torch.float32).view(1, 1, TOKENS, DEPTH)
    return plain(m, q * angles.cos() + torch.cat([q[..., 1:], -q[..., :1]], -1) * angles.sin(), k * angles.cos(), v)


def repeated(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n, heads, t, d = k.shape
    k, v = (y[:, :, None].expand(n, heads, HEADS // heads, t, d).reshape(n, HEADS, t, d) for y in (k, v))
    return plain(m, q, k, v)


def grouped(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def groups_of(module: nn.Module, x: Tensor | None = None) -> dict[str, int]:
    """The groups of a network, after all of them were cut and compared with the masked network."""
    x = torch.randn(2, TOKENS, 8) if x is None else x
    network = Network(module.eval(), x)
    for kept in halves(network):
        full = copy_graph_module(network.graph_module, None, masked(network, kept))
        torch.testing.assert_close(cut(network, kept)(x), full(x), rtol=1e-4, atol=1e-5)
    return dict(network.groups)


def halves(network: Network) -> Iterator[dict[str, Tensor]]:
    for first in (0, 1):
        yield {group: torch.arange(size)[first::2] for group, size in network.groups.items()}


@pytest.mark.parametrize(
    "compute", [plain, biased, looked_up, spelled_out, by_einsum, implicit_einsum, rotated], ids=lambda f: f.__name__
)
def test_whole_heads_go_with_their_queries_keys_and_values(compute: Any) -> None:
    assert groups_of(Attention(compute)) == {"q": HEADS}


@pytest.mark.parametrize("compute", [repeated, grouped], ids=lambda f: f.__name__)
def test_queries_that_share_a_key_go_with_it(compute: Any) -> None:
    assert groups_of(Attention(compute, shared=2)) == {"q": 2}


@pytest.mark.parametrize("compute", [repeated, grouped], ids=lambda f: f.__name__)
def test_queries_that_all_share_one_key_stay(compute: Any) -> None:
    assert groups_of(Attention(compute, shared=1)) == {}


class Fused(nn.Module):
    """Query, key and value of one layer, taken apart as the function given does."""

    def __init__(self, take_apart: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 3 * WIDTH), nn.Linear(WIDTH, 6)
        self.take_apart = take_apart

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.take_apart(self.qkv(x))
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


@pytest.mark.parametrize(
    "take_apart",
    [
        lambda y: y.view(-1, TOKENS, 3, HEADS, DEPTH).permute(2, 0, 3, 1, 4).unbind(0),
        lambda y: y.view(-1, TOKENS, 3, HEADS, DEPTH).permute(2, 0, 3, 1, 4),
        lambda y: y.view(-1, TOKENS, HEADS, 3 * DEPTH).transpose(1, 2).chunk(3, -1),
        lambda y: [z.view(-1, TOKENS, HEADS, DEPTH).transpose(1, 2) for z in y.split(WIDTH, -1)],
        lambda y: [z.view(-1, TOKENS, HEADS, DEPTH).transpose(1, 2) for z in y.unflatten(-1, (3, WIDTH)).unbind(-2)],
    ],
)
def test_one_layer_may_write_all_of_them(take_apart: Any) -> None:
    assert groups_of(Fused(take_apart)) == {"qkv": HEADS}


def test_torch_s_own_attention_has_heads_in_one_weight() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor) -> Tensor:
            mixed: Tensor = self.head(self.attention(x, x, x, need_weights=False)[0])
            return mixed

    groups = groups_of(Own(), torch.randn(2, TOKENS, WIDTH))
    assert groups["attention.in_proj_weight"] == HEADS


def reasons(compute: Any) -> dict[str, str]:
    return dict(Network(Attention(compute), torch.randn(2, TOKENS, 8)).flow.fixed)


def summed_over_heads(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhtd,bhsd->bts", q, k)[:, None] @ v


def across(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mixed = (q.transpose(1, 2) @ k.transpose(1, 2).transpose(2, 3)) @ v.transpose(1, 2)
    return mixed.transpose(1, 2)


def fixed_mask(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.arange(HEADS * 25.0).view(1, HEADS, 5, 5))


@pytest.mark.parametrize(
    ("compute", "why"),
    [
        (summed_over_heads, "it is summed up, or lies across other channels (einsum)"),
        (across, "it is summed up, or lies across other channels (matmul)"),
        (fixed_mask, "it meets a tensor whose channels are fixed (scaled_dot_product_attention)"),
    ],
    ids=["einsum", "matmul", "mask"],
)
def test_what_depends_on_all_heads_says_why(compute: Any, why: str) -> None:
    assert reasons(compute)["q"] == why


def test_one_head_s_features_stay() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            mixed: Tensor = self.out(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))
            return mixed

    fixed = Network(Single(), torch.randn(2, TOKENS, 8)).flow.fixed
    assert fixed["q"] == "operator scaled_dot_product_attention compares along it (scaled_dot_product_attention)"
