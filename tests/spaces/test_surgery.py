from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kneepoint.spaces.network import Network
from kneepoint.spaces.surgery import cut, cut_tensor, trainable
from kneepoint.spaces.tracing import tensors_of

NetworkOf = Callable[[str], Network]
BatchOf = Callable[[str, int], tuple[tuple[Any, ...], dict[str, Any]]]


def test_cutting_nothing_shares_every_tensor(network_of: NetworkOf, batch_of: BatchOf) -> None:
    network = network_of("residual")
    same = cut(network, {})
    args, _ = batch_of("residual", 2)
    assert torch.equal(same(*args), network.graph_module(*args))
    assert all(value is network.tensors()[name] for name, value in tensors_of(same).items())


def test_cutting_leaves_the_network_alone(network_of: NetworkOf, batch_of: BatchOf) -> None:
    network = network_of("mobile")
    args, _ = batch_of("mobile", 2)
    before = network.graph_module(*args)
    small = cut(network, {"expand": torch.tensor([1, 5])})
    assert torch.equal(network.graph_module(*args), before)
    assert tensors_of(small)["depthwise.weight"].shape == (2, 1, 3, 3)
    assert isinstance(tensors_of(small)["depthwise.weight"], nn.Parameter)
    assert tensors_of(small)["head.weight"] is network.tensors()["head.weight"]


def test_given_tensors_are_cut_instead_of_the_networks_own(network_of: NetworkOf) -> None:
    network = network_of("residual")
    given = {"a.weight": torch.arange(6.0).view(6, 1, 1, 1).expand(6, 8, 3, 3)}
    small = cut(network, {"a": torch.tensor([2, 3])}, given)
    assert tensors_of(small)["a.weight"][:, 0, 0, 0].tolist() == [2.0, 3.0]


def test_a_flattened_channel_takes_its_whole_block_along(network_of: NetworkOf) -> None:
    network = network_of("flattened")
    layouts = network.flow.parameters["a.weight"]
    rows = cut_tensor(torch.arange(36.0).expand(6, 36), layouts, {"conv": torch.tensor([1, 3])})
    assert rows[0].tolist() == [*range(9, 18), *range(27, 36)]


def test_a_trainable_copy_follows_its_mode(network_of: NetworkOf, batch_of: BatchOf) -> None:
    network = network_of("residual")
    args, _ = batch_of("residual", 8)
    copy = trainable(network.graph_module)
    copy.eval()
    assert torch.equal(copy(*args), network.graph_module(*args))
    copy.train()
    torch.manual_seed(0)
    first = copy(*args)
    assert not torch.allclose(first, network.graph_module(*args))
    first.sum().backward()
    assert all(parameter.grad is not None for parameter in copy.parameters())
    assert all(parameter.grad is None for parameter in network.graph_module.parameters())


def test_every_dropout_follows_the_mode() -> None:
    layers = (nn.Dropout1d(0.5), nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.5), nn.Dropout(0.5))
    module = nn.Sequential(nn.Conv1d(2, 64, 1), *layers, nn.Conv1d(64, 3, 1))
    x = torch.randn(2, 2, 4)
    network = Network(module.eval(), x)
    assert len(network.identities) == len(layers)
    for layer in layers:
        alone = trainable(Network(nn.Sequential(module[0], layer, module[-1]).eval(), x).graph_module)
        assert torch.equal(alone.eval()(x), alone(x))
        assert not torch.equal(alone.train()(x), alone(x))
