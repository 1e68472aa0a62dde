from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression.observing import Observed, observe_call
from kneepoint.spaces.tracing import trace

SAMPLES, TOKENS, WIDTH = 3, 5, 8


class Attending(nn.Module):
    """Attention by one function or written out, in residual blocks."""

    def __init__(self, heads: int = 2, fused: bool = True, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.fused, self.causal = heads, fused, causal
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.position = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            y = ((q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).flatten(2))
        result: Tensor = self.head(x)
        return result


def seen(module: nn.Module, x: Tensor) -> Observed:
    outputs, found = observe_call(lambda: module(x), module, len(x))
    assert torch.equal(outputs, module(x))
    return found


@pytest.fixture
def x() -> Tensor:
    return torch.randn(SAMPLES, TOKENS, WIDTH)


def test_residual_additions_count_and_positions_do_not(x: Tensor) -> None:
    module = Attending()
    for network in (module, trace(module, x)):
        found = seen(network, x)
        assert [depth for depth, _ in found.layers] == [1, 2, 3, 4, 5]
        assert [depth for depth, _ in found.additions] == [4]
        assert found.states[0][1].shape == x.shape
        assert found.states[0][1].requires_grad


def test_without_additions_the_states_are_those_of_layers_but_the_last() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 2))
    found = seen(module, torch.randn(2, 1, 8, 8))
    assert [tuple(value.shape) for _, value in found.states] == [(2, 4, 6, 6), (2, 6, 4, 4)]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_same_however_it_is_written(x: Tensor, causal: bool) -> None:
    module = Attending(causal=causal)
    found = [seen(module, x), seen(trace(module, x), x)]
    if not causal:
        module.fused = False
        found.append(seen(module, x))
    for one in found:
        ((_, weights),) = one.attention
        assert weights.shape == (SAMPLES, TOKENS, TOKENS)
        torch.testing.assert_close(weights.sum(-1), torch.ones(SAMPLES, TOKENS))
        torch.testing.assert_close(weights, found[0].attention[0][1])
    assert (float(weights.triu(1).sum().detach()) == 0) == causal


def weights_of(**arguments: Tensor | float | bool) -> Tensor:
    query, key = torch.randn(2, 4, TOKENS, 6), torch.randn(2, 2 if "enable_gqa" in arguments else 4, TOKENS, 6)
    value = torch.eye(TOKENS).expand(*key.shape[:2], TOKENS, TOKENS)  # the result is then the attention itself
    call = lambda: F.scaled_dot_product_attention(query, key, value, **arguments)  # type: ignore[arg-type]  # noqa: E731
    result, found = observe_call(call, None, 2)
    ((_, weights),) = found.attention
    torch.testing.assert_close(weights, result.mean(1))
    return weights


def test_masks_scales_and_grouped_queries_count() -> None:
    weights_of(scale=0.1)
    weights_of(enable_gqa=True)
    weights_of(attn_mask=torch.randn(TOKENS, TOKENS))
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[:, 3] = False
    mask[2] = False
    assert float(weights_of(attn_mask=mask)[:, 2].abs().sum()) == 0


def test_heads_in_the_batch_are_told_from_samples() -> None:
    scores = torch.randn(2 * 3, TOKENS, TOKENS)
    _, found = observe_call(lambda: scores.softmax(-1), None, 2)
    torch.testing.assert_close(found.attention[0][1], scores.softmax(-1).view(2, 3, TOKENS, TOKENS).mean(1))


def test_a_softmax_over_classes_or_of_vectors_is_no_attention() -> None:
    x = torch.randn(2, 3, 4)
    _, found = observe_call(lambda: (x.softmax(1), x[0].softmax(-1), torch.softmax(x, dim=-1)), None, 2)
    assert len(found.attention) == 1
