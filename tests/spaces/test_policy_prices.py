"""Policies priced by gathering, against each of them lowered."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.devices import load_device
from kneepoint.hardware_models.workload import Workload
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import BLOCK, LayerPolicy, Policy
from kneepoint.spaces.policy_prices import PolicyPrices
from kneepoint.tasks.errors import DeviceError, SpaceError

NetworkOf = Callable[[str], Network]
FORMATS = [
    LayerPolicy.parse(name)
    for name in ("w2a8", "w4a8", "w8a8", "w16", "w32", "w8a8-dynamic", "w4-g32", "w8a16", "w4a8-dynamic-g32")
]
SHARES = (1.0, 0.75, 0.5, 0.25)


def policies(network: Network, count: int, seed: int = 0, formats: Sequence[LayerPolicy] = FORMATS) -> list[Policy]:
    """Every layer and every group chosen by itself."""
    rng = random.Random(seed)  # noqa: S311 - a test, no secret
    return [
        Policy.build(
            keep={group: rng.choice(SHARES) for group in network.groups},
            layers={name: layer.admit(rng.choice(formats)) for name, layer in network.layers.items()},
        )
        for _ in range(count)
    ]


def assert_equal_to_each(prices: PolicyPrices, listed: Sequence[Policy], device: str) -> None:
    model, network = CostModel(load_device(device)), prices.network
    found = prices.price(listed)
    for index, policy in enumerate(listed):
        cost = model.cost(Workload.of(lower(network, policy), model.device.fusion))
        assert found.latency_ms[index] == pytest.approx(cost.latency_ms, rel=1e-9)
        assert found.energy_mj is not None
        assert found.energy_mj[index] == pytest.approx(cost.energy_mj, rel=1e-9)
        assert found.storage_bytes[index] == cost.storage_bytes


@pytest.mark.parametrize("device", ["x86-server", "raspberry-pi-4b"])
@pytest.mark.parametrize("name", ["residual", "mobile", "text", "dense", "blocks", "unet", "sequence"])
def test_random_policies_cost_what_each_costs_alone(name: str, device: str, network_of: NetworkOf) -> None:
    network = network_of(name)
    prices = PolicyPrices(network, CostModel(load_device(device)))
    assert_equal_to_each(prices, policies(network, 25), device)
    assert_equal_to_each(prices, policies(network, 10, seed=1), device)  # now that some tables are filled


class Deep(nn.Module):
    """Residual blocks, whose state passes from one addition to the next."""

    def __init__(self, blocks: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(32, 32, 1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(blocks))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for first, second in zip(self.first, self.second, strict=True):
            x = F.relu(x + second(F.relu(first(x))))
        return torch.as_tensor(self.head(x.mean((2, 3))))


@pytest.fixture(scope="module")
def deep() -> Network:
    return Network(Deep().eval(), torch.randn(1, 3, 8, 8))


def test_states_that_pass_through_many_additions(deep: Network) -> None:
    prices = PolicyPrices(deep, CostModel(load_device("x86-server")))
    formats = [LayerPolicy.of_bits(bits) for bits in (8, 16)]
    many = policies(deep, 600, formats=formats)
    prices.price(many)
    assert_equal_to_each(prices, [*many[::60], *policies(deep, 20, seed=1, formats=formats)], "x86-server")


def test_what_was_learned_is_not_lowered_again(deep: Network) -> None:
    prices = PolicyPrices(deep, CostModel(load_device("x86-server")))
    listed = policies(deep, 40)
    first = prices.price(listed)
    lowered = prices.lowered
    again = prices.price(listed)
    assert prices.lowered == lowered
    assert np.array_equal(first.latency_ms, again.latency_ms)


def test_policies_without_blocks_have_tables_of_their_own(deep: Network) -> None:
    gone = list(deep.blocks)[:2]
    assert gone
    listed = [
        Policy.build(keep={BLOCK + name: 0.0 for name in gone[: index % 3]}, layers=dict(policy.layers))
        for index, policy in enumerate(policies(deep, 9))
    ]
    assert_equal_to_each(PolicyPrices(deep, CostModel(load_device("x86-server"))), listed, "x86-server")


def test_where_tables_grow_too_large_every_policy_is_lowered(deep: Network) -> None:
    prices = PolicyPrices(deep, CostModel(load_device("x86-server")))
    prices._tables.too_large = True
    listed = policies(deep, 3)
    assert_equal_to_each(prices, listed, "x86-server")
    assert prices.lowered == len(listed)


def test_batches_and_nothing_at_all(deep: Network) -> None:
    model = CostModel(load_device("x86-server"))
    policy = Policy.build()
    (latency,) = PolicyPrices(deep, model, batch=4).price([policy]).latency_ms
    assert latency == pytest.approx(model.cost(Workload.of(lower(deep, policy, 4), model.device.fusion)).latency_ms)
    assert PolicyPrices(deep, model).price([]).latency_ms.shape == (0,)


def test_energy_is_unknown_where_power_is(deep: Network) -> None:
    device = load_device("x86-server").model_copy(update={"power": None})
    assert PolicyPrices(deep, CostModel(device)).price([Policy.build()]).energy_mj is None


def test_bad_policies_are_refused(deep: Network) -> None:
    prices = PolicyPrices(deep, CostModel(load_device("x86-server")))
    with pytest.raises(SpaceError, match="has no layer 'steem'"):
        prices.price([Policy.build(layers={"steem": LayerPolicy.of_bits(8)})])
    with pytest.raises(SpaceError, match="has no channel group 'stem2'"):
        prices.price([Policy.build(keep={"stem2": 0.5})])
    device = load_device("x86-server").model_copy(update={"element_rates": {"view": {"fp32": 1.0}}})
    with pytest.raises(DeviceError, match="has no rate for"):
        PolicyPrices(deep, CostModel(device, unpriced="refuse")).price([Policy.build()])
