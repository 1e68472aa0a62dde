from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kneepoint.spaces.network import Network
from kneepoint.spaces.ranking import IMPORTANCES, Importance, best_channels, channel_scores, rank_channels
from kneepoint.tasks.errors import SpaceError

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


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_every_channel_is_ranked_once(name: str, importance: Importance, network_of: NetworkOf) -> None:
    network = network_of(name)
    ranking = rank_channels(network, network.tensors(), importance, [network.tensors()])
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


class Chain(nn.Module):
    """Three channels between two linear layers, with a BatchNorm; a fourth layer beside it without one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)
        self.c = nn.Linear(3, 2)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[3.0, 0.0], [-2.0, 2.0], [1.0, 1.0]]))
            self.a.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
            self.norm.weight.copy_(torch.tensor([0.1, -0.3, 0.2]))
            self.b.weight.copy_(torch.eye(3))

    def forward(self, x: Tensor) -> Any:
        return self.c(self.b(self.norm(self.a(x))))


@pytest.fixture(scope="module")
def chain() -> Network:
    return Network(Chain().eval(), torch.randn(1, 2))


def scores(chain: Network, importance: Importance, gradients: list[Mapping[str, Tensor]] | None = None) -> list[float]:
    return [round(score, 6) for score in channel_scores(chain, chain.tensors(), importance, gradients)["a"].tolist()]


def test_criteria_of_weights(chain: Network) -> None:
    assert scores(chain, "l1") == [3, 4, 2]
    assert scores(chain, "l2") == [9, 8, 2]
    assert scores(chain, "lamp") == [1.0, round(8 / 17, 6), round(2 / 19, 6)]
    assert scores(chain, "bn_scale") == pytest.approx([0.1, 0.3, 0.2])
    # Written by a (mean 19 / 3) and read by b, whose columns all have norm 1.
    assert scores(chain, "group_norm") == pytest.approx([1 + 27 / 19, 1 + 24 / 19, 1 + 6 / 19], abs=1e-5)


def test_a_group_without_batch_norm_is_ranked_by_its_weights(chain: Network) -> None:
    tensors = chain.tensors()
    by_gain, by_norm = (channel_scores(chain, tensors, name)["b"] for name in ("bn_scale", "group_norm"))
    assert torch.equal(by_gain, by_norm)


def test_first_order_importance_squares_the_change_of_every_batch(chain: Network) -> None:
    ones = {name: torch.ones_like(value) for name, value in chain.tensors().items()}
    assert scores(chain, "taylor", [ones]) == [9, 0, 49]  # of the weights' and the bias's sum
    halves: dict[str, Tensor] = {**ones, "a.weight": -ones["a.weight"], "a.bias": torch.zeros(3)}
    assert scores(chain, "taylor", [ones, halves]) == [9, 0, (49 + 4) / 2]
    only_weights = {"a.weight": ones["a.weight"]}
    assert scores(chain, "taylor", [only_weights]) == [9, 0, 4]


def test_first_order_importance_is_the_loss_of_silencing_a_channel() -> None:
    """For a linear network and loss, the first order is exact."""
    module = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    x = torch.randn(5, 2)
    network = Network(module, x[:1])
    gradients = torch.autograd.grad(module(x).sum(), list(module.parameters()))
    named = dict(zip(dict(module.named_parameters()), gradients, strict=True))
    found = channel_scores(network, network.tensors(), "taylor", [named])["0"]
    whole = module(x).sum()
    for channel, score in enumerate(found):
        hidden = module[0](x)
        hidden[:, channel] = 0
        assert torch.isclose((whole - module[1](hidden).sum()) ** 2, score.float(), rtol=1e-4)


def test_bad_criteria_are_refused(chain: Network) -> None:
    with pytest.raises(SpaceError, match="unknown importance 'tailor'; did you mean 'taylor'"):
        rank_channels(chain, chain.tensors(), "tailor")  # type: ignore[arg-type]  # what a user may write
    with pytest.raises(SpaceError, match="needs the gradients of the loss by the weights"):
        rank_channels(chain, chain.tensors(), "taylor")
    with pytest.raises(SpaceError, match="at least one batch"):
        rank_channels(chain, chain.tensors(), "taylor", [])
