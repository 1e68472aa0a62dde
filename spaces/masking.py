"""What cutting channels out of a network has to be equal to: the network with those channels silenced."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kneepoint.spaces.network import Network, indices

_INPUT_AXIS = {"conv": 1, "linear": 1, "conv_transpose": 0}


def masked(network: Network, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of the network, the weights with zeros where they read channels that go.

    The full network computes with them what the cut one does with its own, which is the contract of
    :func:`kneepoint.spaces.surgery.cut`. Convolutions with groups lose whole groups, so that whoever reads theirs is
    silenced instead.

    Args:
        network: Left untouched.
        kept: Sorted channel indices to keep, by group.
    """
    tensors = {name: value.detach().clone() for name, value in network.tensors().items()}
    for operation in network.operations:
        axis = _INPUT_AXIS.get(operation.kind)
        layout = () if axis is None else network.flow.parameters[operation.weight][axis]
        if axis is not None and layout:
            gone = torch.ones(tensors[operation.weight].shape[axis], dtype=torch.bool)
            gone[indices(layout, kept)] = False
            tensors[operation.weight].index_fill_(axis, gone.nonzero().flatten(), 0.0)
    return tensors
