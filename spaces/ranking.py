"""Which channels of a group matter: the group norm of all weights that read or write them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kneepoint.spaces.channel_flow import Layout
from kneepoint.spaces.network import Network


def rank_channels(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Channels of every group from most to least important.

    The importance of a channel is the mean over the group's weights of its squared L2 norm in that weight, each weight
    normalized by its own mean (DepGraph's group norm; Fang et al., CVPR 2023, section 3.3). Rankings are nested: what
    stays at a quarter also stays at a half.

    Args:
        network: Whose groups to rank.
        tensors: Full-size values of the network's weights, by name.
    """
    importance = {group: torch.zeros(size, dtype=torch.float64) for group, size in network.groups.items()}
    weights = dict.fromkeys(operation.weight for operation in network.operations if operation.weight)
    for name in weights:
        for axis, layout in enumerate(network.flow.parameters[name]):
            for group, score in _scores(tensors[name].detach().double(), axis, layout):
                importance[group] += score / score.mean().clamp_min(1e-12)
    return {group: torch.argsort(score, descending=True, stable=True) for group, score in importance.items()}


def best_channels(ranking: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Sorted indices of the ``counts[group]`` most important channels of each group."""
    return {group: ranking[group][:count].sort().values for group, count in counts.items()}


def _scores(weight: Tensor, axis: int, layout: Layout) -> list[tuple[str, Tensor]]:
    """Squared norm of every channel along ``axis``, for each segment of the axis that belongs to a group."""
    norms = weight.square().sum(dim=[dim for dim in range(weight.dim()) if dim != axis])
    found, offset = [], 0
    for segment in layout:
        size = segment.channels * segment.repeat
        if segment.group is not None:
            found.append((segment.group, norms[offset : offset + size].view(segment.channels, -1).sum(dim=1)))
        offset += size
    return found
