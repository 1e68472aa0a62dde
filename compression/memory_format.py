"""The memory format in which a simulator is fastest.

Depthwise convolutions take 15 to 25 % less time with channels last, if their inputs come so, too; networks without them
take the same time either way, and stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from kneepoint.spaces.network import Network

_IMAGE_AXES = 4
_TREE_MAP = torch.utils._pytree.tree_map


def use_fastest_format_(module: fx.GraphModule, network: Network) -> None:
    """Lay the convolution weights of ``module`` out as is fastest, and its inputs at every call, in place.

    Args:
        module: A simulator of ``network``; values stay the same up to the order in which sums are added.
        network: Says which layers there are.
    """
    if not any(op.kind == "depthwise_conv" and len(op.shape) == _IMAGE_AXES for op in network.operations):
        return
    for name, value in list(module.named_buffers()):
        module.get_submodule(name.rpartition(".")[0])._buffers[name.rpartition(".")[2]] = channels_last(value)
    module.register_forward_pre_hook(_convert, with_kwargs=True)


def channels_last(value: Any) -> Any:
    """A tensor of four axes with its channels last in memory; anything else as it is."""
    if not isinstance(value, Tensor) or value.dim() != _IMAGE_AXES:
        return value
    samples, channels, height, width = value.shape
    if channels > 1:
        return value.contiguous(memory_format=torch.channels_last)
    # One channel is contiguous both ways, and torch takes it for the usual one unless its strides say otherwise.
    return value.contiguous().as_strided((samples, 1, height, width), (height * width, 1, width, 1))


def _convert(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return _TREE_MAP(channels_last, args), _TREE_MAP(channels_last, kwargs)
