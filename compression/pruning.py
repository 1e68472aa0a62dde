"""Which channels of a group stay: the group norm of all weights that read or write them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from kneepoint.spaces.channel_flow import Layout
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy


def channel_ranking(network: Network, folded: fx.GraphModule) -> dict[str, Tensor]:
    """Channels of every group from most to least important.

    The importance of a channel is the mean over the group's weights of its squared L2 norm in that weight, each weight
    normalized by its own mean (DepGraph's group norm; Fang et al., CVPR 2023, section 3.3), on weights with BatchNorm
    folded in, so that its gain counts. Rankings are nested: what stays at a quarter also stays at a half.

    Args:
        network: Whose groups to rank.
        folded: The network with BatchNorm folded (full width).
    """
    importance = {group: torch.zeros(size, dtype=torch.float64) for group, size in network.groups.items()}
    parts = dict.fromkeys(importance, 0)
    state = {**dict(folded.named_parameters()), **dict(folded.named_buffers())}
    for layer in network.layers.values():
        weight = state[layer.weight].detach().double()
        for axis, layout in enumerate(network.flow.parameters[layer.weight]):
            for group, score in _scores(weight, axis, layout):
                importance[group] += score / score.mean().clamp_min(1e-12)
                parts[group] += 1
    return {
        group: torch.argsort(score / max(1, parts[group]), descending=True, stable=True)
        for group, score in importance.items()
    }


def kept_channels(network: Network, policy: Policy, ranking: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sorted indices of the channels that ``policy`` keeps, for the groups it thins out."""
    counts = network.channels(policy)
    return {group: ranking[group][: counts[group]].sort().values for group in policy.keep_of}


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
