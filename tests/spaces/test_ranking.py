from __future__ import annotations

from collections.abc import Callable

import torch

from kneepoint.spaces.network import Network
from kneepoint.spaces.ranking import best_channels, rank_channels

NetworkOf = Callable[[str], Network]


def test_the_largest_channel_comes_first_and_the_dead_one_last(network_of: NetworkOf) -> None:
    network = network_of("residual")
    tensors = {name: value.detach().clone() for name, value in network.tensors().items()}
    tensors["a.weight"][4] *= 100
    tensors["a.weight"][1] = 0
    tensors["b.weight"][:, 1] = 0
    ranking = rank_channels(network, tensors)
    assert ranking["a"][0] == 4
    assert ranking["a"][-1] == 1


def test_every_channel_is_ranked_once(name: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    ranking = rank_channels(network, network.tensors())
    assert {group: len(order) for group, order in ranking.items()} == network.groups
    assert all(order.sort().values.tolist() == list(range(len(order))) for order in ranking.values())


def test_kept_sets_are_nested_and_sorted(network_of: NetworkOf) -> None:
    network = network_of("dense")
    ranking = rank_channels(network, network.tensors())
    few, many = best_channels(ranking, {"stem": 2}), best_channels(ranking, {"stem": 4})
    assert set(few["stem"].tolist()) < set(many["stem"].tolist())
    assert torch.equal(many["stem"], many["stem"].sort().values)


def test_weights_of_zeros_can_be_ranked(network_of: NetworkOf) -> None:
    network = network_of("unet")
    zeros = {name: torch.zeros_like(value) for name, value in network.tensors().items()}
    assert torch.equal(rank_channels(network, zeros)["up"], torch.arange(5))
