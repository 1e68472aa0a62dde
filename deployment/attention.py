"""Scaled dot-product attention spelled out, in operators that export without arithmetic on shapes.

torch.onnx turns the key with two reshapes whose sizes are computed at every inference, adds a mask where everything is
seen, and guards against rows that see nothing where there are none. ONNX Runtime executes all of it. Here the mask is
looked at first.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from kneepoint.deployment.input_independence import constant_value
from kneepoint.spaces.attention import essential_mask
from kneepoint.spaces.head_axes import ATTENTION
from kneepoint.spaces.tracing import argument_of, operator_name

_MASK, _CAUSAL = 3, 5
"""Positions of arguments of torch.nn.functional.scaled_dot_product_attention."""


def spell_out_attention(graph: fx.Graph, state: Mapping[str, Tensor]) -> None:
    """Put the operators that attention consists of in its place, in place.

    Args:
        graph: As ``torch.export`` gives it.
        state: The stored tensors, by name; floats among them may be trained further.
    """
    for node in graph.nodes:
        if operator_name(node) != ATTENTION:
            continue
        mask = essential_mask(argument_of(node, _MASK, "attn_mask", None), lambda constant: _is_true(constant, state))
        known = None if mask is None else constant_value(mask, state)
        if known is not None and _shows_everything(known):
            mask = None
        node.kwargs = {
            "mask": mask,
            "causal": argument_of(node, _CAUSAL, "is_causal", False),
            "scale": node.kwargs.get("scale"),
            "grouped": node.kwargs.get("enable_gqa", False),
            "blind_rows": known is None or not bool(known.any(-1).all()),
        }
        node.target, node.args = attention, node.args[:_MASK]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    grouped: bool = False,
    blind_rows: bool = True,
) -> Tensor:
    """softmax(query key^T scale + mask) value.

    Vaswani et al., "Attention is all you need", NeurIPS 2017, equation 1. Query heads that share a key (Ainslie et
    al., "GQA", EMNLP 2023) become an axis of their own, along which key and value are broadcast.

    Args:
        query: (..., heads, rows, depth).
        key: (..., heads, columns, depth); with fewer heads if ``grouped``.
        value: (..., heads, columns, features); with as many heads as ``key``.
        mask: Broadcasts to (..., heads, rows, columns): added, or true where a column is seen.
        causal: Whether a row sees the columns up to its own alone.
        scale: 1 / sqrt(depth) unless given.
        grouped: Whether heads of ``query`` may share one of ``key``.
        blind_rows: Whether a mask of truth values may leave a row without any column; its result is 0.

    Returns:
        (..., heads, rows, features).
    """
    if grouped and query.shape[-3] != key.shape[-3]:
        sizes = (key.shape[-3], query.shape[-3] // key.shape[-3])
        query, key, value = query.unflatten(-3, sizes), key.unsqueeze(-3), value.unsqueeze(-3)
        if mask is not None and mask.dim() > 2:
            mask = mask.unsqueeze(-3) if mask.shape[-3] == 1 else mask.unflatten(-3, sizes)
        parts = attention(query, key, value, mask=mask, causal=causal, scale=scale, blind_rows=blind_rows)
        return parts.flatten(-4, -3)
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        blind_rows = False
    if mask is None:
        return scores.softmax(-1) @ value
    if mask.dtype != torch.bool:
        return (scores + mask).softmax(-1) @ value
    hidden = torch.finfo(scores.dtype).min  # an infinity would leave a row that sees nothing without a sum
    result = (scores + torch.where(mask, 0.0, hidden)).softmax(-1) @ value
    return result * mask.to(result.dtype).amax(-1, keepdim=True) if blind_rows else result


def _is_true(node: fx.Node, state: Mapping[str, Tensor]) -> bool:
    """Whether a node is a constant that is true everywhere."""
    value = constant_value(node, state)
    return value is not None and bool(value.all())


def _shows_everything(mask: Tensor) -> bool:
    return bool(mask.all()) if mask.dtype == torch.bool else not bool(mask.any())
