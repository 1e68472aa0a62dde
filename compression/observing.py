"""What a network computes on the way, of any module: its hidden states and its attention.

A module is called under a mode that sees every torch function it calls, so that it need not be rewritten, traced or
hooked, and what is seen carries gradients. Of a traced graph only the graph's own operators count, not those that its
quantizers are made of. What happens inside ``torch.nn.MultiheadAttention`` is one function to torch, and not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

_LAYERS = frozenset({"linear", *(f"conv{n}d" for n in (1, 2, 3)), *(f"conv_transpose{n}d" for n in (1, 2, 3))})
_ADDITIONS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})
_SOFTMAX = frozenset({"softmax", "_softmax"})
_ATTENTION = "scaled_dot_product_attention"
_MASK, _CAUSAL, _SCALE, _GROUPED = (3, "attn_mask"), (5, "is_causal"), (6, "scale"), (7, "enable_gqa")
"""Positions and names of arguments of torch.nn.functional.scaled_dot_product_attention."""


@dataclass
class Observed:
    """What one call computed, in order.

    Attributes:
        additions: Results of residual additions, each with the number of layers that were computed before it.
        layers: Results of layers, likewise.
        attention: How much every position attends to every other, averaged over heads: (N, queries, keys), likewise.
    """

    additions: list[tuple[int, Tensor]] = field(default_factory=list)
    layers: list[tuple[int, Tensor]] = field(default_factory=list)
    attention: list[tuple[int, Tensor]] = field(default_factory=list)

    @property
    def states(self) -> list[tuple[int, Tensor]]:
        """What residual blocks hand on; where there are none, what layers do, but for the last."""
        return self.additions or self.layers[:-1]


def observe_call(call: Callable[[], Any], module: object, samples: int) -> tuple[Any, Observed]:
    """What ``call`` returns, which calls ``module``, and what was computed on the way.

    Args:
        call: Computes the outputs.
        module: Says what counts: of a traced graph, its own operators.
        samples: In the batch; what has another size along dimension 0 is no hidden state.
    """
    observer = _Observer(samples, operators_alone=isinstance(module, fx.GraphModule))
    with observer:
        outputs = call()
    return outputs, observer.seen


class _Observer(TorchFunctionMode):
    def __init__(self, samples: int, operators_alone: bool) -> None:
        super().__init__()
        self.seen = Observed()
        self._samples = samples
        self._operators_alone = operators_alone

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        result = func(*args, **named)
        is_operator = isinstance(func, torch._ops.OpOverload)
        if isinstance(result, Tensor) and (is_operator or not self._operators_alone):
            name = func.overloadpacket.__name__ if is_operator else getattr(func, "__name__", "")
            self._note(str(name), args, named, result)
        return result

    def _note(self, name: str, args: tuple[Any, ...], named: Mapping[str, Any], result: Tensor) -> None:
        depth = len(self.seen.layers)
        if name in _LAYERS:
            self.seen.layers.append((depth + 1, result))
        elif name == _ATTENTION:
            self.seen.attention.append((depth, _over_heads(_weights(args, named), self._samples)))
        elif name in _SOFTMAX and self._is_attention(args, named, result):
            self.seen.attention.append((depth, _over_heads(result, self._samples)))
        elif name in _ADDITIONS and self._is_residual(args, result):
            self.seen.additions.append((depth, result))

    def _is_attention(self, args: tuple[Any, ...], named: Mapping[str, Any], value: Tensor) -> bool:
        axis = args[1] if len(args) > 1 else named.get("dim")
        return axis in (-1, value.dim() - 1) and value.dim() in (3, 4) and len(value) % self._samples == 0

    def _is_residual(self, args: tuple[Any, ...], value: Tensor) -> bool:
        if not (value.is_floating_point() and value.dim() > 1 and len(value) == self._samples and len(args) > 1):
            return False
        return all(isinstance(part, Tensor) and part.shape == value.shape for part in args[:2])


def _weights(args: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    """softmax(query key^T / sqrt(depth) + mask) (Vaswani et al., NeurIPS 2017, equation 1): (..., queries, keys)."""

    def argument(place: tuple[int, str], default: Any) -> Any:
        return args[place[0]] if len(args) > place[0] else named.get(place[1], default)

    query, key = argument((0, "query"), None), argument((1, "key"), None)
    if argument(_GROUPED, False):
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scale = argument(_SCALE, None) or 1 / math.sqrt(query.shape[-1])
    scores = (query @ key.transpose(-2, -1)).float() * scale
    mask = argument(_MASK, None)
    if argument(_CAUSAL, False):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else scores + mask
    weights: Tensor = scores.softmax(-1).nan_to_num()  # a row that may see nothing
    return weights


def _over_heads(weights: Tensor, samples: int) -> Tensor:
    """(N, heads, queries, keys) or (N x heads, queries, keys) to (N, queries, keys)."""
    return weights.reshape(samples, -1, *weights.shape[-2:]).mean(1)
