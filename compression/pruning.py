"""Which channels of a group stay."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, fx

from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.ranking import best_channels, rank_channels
from kneepoint.spaces.tracing import tensors_of


def channel_ranking(network: Network, folded: fx.GraphModule) -> dict[str, Tensor]:
    """Channels of every group from most to least important, by group norm with BatchNorm's gain counted in.

    Args:
        network: Whose groups to rank.
        folded: The network with BatchNorm folded (full width).
    """
    return rank_channels(network, tensors_of(folded))


def kept_channels(network: Network, policy: Policy, ranking: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sorted indices of the channels that ``policy`` keeps, for the groups it thins out."""
    counts = network.channels(policy)
    return best_channels(ranking, {group: counts[group] for group in policy.keep_of})
