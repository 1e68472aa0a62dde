from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.deployment.attention import attention, spell_out_attention
from kneepoint.spaces.tracing import copy_graph_module, operator_name, tensors_of, trace

ROWS = 5


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["none", "bool", "float", "causal"]),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    mask_heads=st.sampled_from([0, 1, 4]),
    scale=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 99),
)
def test_it_computes_what_torch_does(
    kind: str, heads: tuple[int, int], mask_heads: int, scale: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(3, n, ROWS, 8, generator=generator) for n in (heads[0], heads[1], heads[1]))
    mask = None
    if kind in ("bool", "float"):
        shape = (3, mask_heads, ROWS, ROWS) if mask_heads else (ROWS, ROWS)
        mask = torch.randn(shape, generator=generator)
        mask = mask > 0.5 if kind == "bool" else mask
    found = attention(query, key, value, mask=mask, causal=kind == "causal", scale=scale, grouped=True)
    expected = F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=kind == "causal", scale=scale, enable_gqa=True
    )
    torch.testing.assert_close(found, expected)


def test_a_row_that_sees_nothing_gets_nothing() -> None:
    query = torch.randn(2, 1, ROWS, 4)
    mask = torch.ones(2, 1, ROWS, ROWS, dtype=torch.bool)
    mask[1, 0, 3] = False
    found = attention(query, query, query, mask=mask)
    assert not found[1, 0, 3].any()
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, query, query, mask))


class Masked(nn.Module):
    """Attention of its input to itself, with a mask made from it or from nothing."""

    def __init__(self, mask: Any) -> None:
        super().__init__()
        self.mask = mask
        self.register_buffer("stored", torch.ones(ROWS, ROWS, dtype=torch.bool).tril())
        self.learned = nn.Parameter(torch.zeros(ROWS, ROWS))

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, self.mask(self, x))


def all_seen(net: Any, x: Tensor) -> Tensor:
    return (torch.arange(ROWS) >= 0)[None, None, :, None].expand(x.shape[0], 1, ROWS, ROWS)


def zeros(net: Any, x: Tensor) -> Tensor:
    return torch.zeros(ROWS, ROWS)


def partly_seen(net: Any, x: Tensor) -> Any:
    return net.stored[None, None].expand(x.shape[0], 1, ROWS, ROWS)


def learned(net: Any, x: Tensor) -> Any:
    return net.learned


def from_input(net: Any, x: Tensor) -> Tensor:
    return (torch.arange(ROWS) >= 0) & (x[:, :, 0] > -1)[:, :, None].expand(x.shape[0], 2, ROWS, 4)[:, :, :, :1]


@pytest.mark.parametrize(
    ("mask", "masked", "guarded"),
    [
        (all_seen, False, False),
        (zeros, False, False),
        (partly_seen, True, False),
        (learned, True, False),
        (from_input, True, True),
    ],
)
def test_a_mask_is_added_unless_it_is_known_to_change_nothing(mask: Any, masked: bool, guarded: bool) -> None:
    torch.manual_seed(0)
    module = trace(Masked(mask), torch.randn(2, 2, ROWS, 4))
    edited = copy_graph_module(module, lambda graph: spell_out_attention(graph, tensors_of(module)))
    (node,) = [node for node in edited.graph.nodes if operator_name(node) == "attention"]
    assert (node.kwargs["mask"] is not None) is masked
    assert (masked and node.kwargs["blind_rows"] and mask is not learned) is guarded
    assert "expand" not in [operator_name(node) for node in edited.graph.nodes][-3:]
    for batch in (1, 3, 8):
        x = torch.randn(batch, 2, ROWS, 4)
        torch.testing.assert_close(edited(x), module(x))
