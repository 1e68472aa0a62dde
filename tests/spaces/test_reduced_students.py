from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kneepoint.spaces.network import Network
from kneepoint.spaces.reduced_students import dropped_blocks, parameters, reduced, reduced_family
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.residual_network import ResidualNet

X = torch.randn(16, 1, 12, 12)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return ResidualNet(width=16, depth=2).eval()


@pytest.fixture(scope="module")
def teacher(model: nn.Module) -> Network:
    return Network(model, X[:1])


def test_a_family_takes_away_what_there_is(teacher: Network) -> None:
    family = reduced_family(teacher)
    assert list(family.axes) == ["width", "depth", "separable"]
    members = family.members()
    assert len(members) == 8
    for width in (0.5, 0.25):
        assert {"width": width, "depth": 1.0, "separable": 0} in members
    assert {"width": 1.0, "depth": 1.0, "separable": 0} not in members


def test_members_have_the_parameters_they_are_counted_with(teacher: Network) -> None:
    family, whole = reduced_family(teacher), parameters(teacher, {})
    shares = []
    for member in family.members():
        module = family.make(member, seed=0)
        count = sum(parameter.numel() for parameter in module.parameters())
        assert count == parameters(teacher, member)
        assert module(X).shape == (16, 10)
        shares.append(count / whole)
    assert sum(0.05 <= share <= 0.15 for share in shares) >= 2
    assert max(shares) < 0.5


def test_the_strongest_channels_stay_and_both_modes_compute(teacher: Network) -> None:
    module = reduced(teacher, {"width": 0.5}).eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    first = module(X)
    torch.testing.assert_close(module(X[:4]), first[:4])
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    module.train()
    assert not torch.allclose(module(X[:4]), first[:4], atol=1e-5)
    assert not torch.equal(module.state_dict()["stem_norm.running_mean"], before["stem_norm.running_mean"])
    student = Network(module, X[:1])
    assert len(student.folds) == len(teacher.folds)
    assert student.groups["stem"] == teacher.groups["stem"] / 2


def test_students_share_nothing_with_the_teacher(model: nn.Module, teacher: Network) -> None:
    for member in ({"width": 0.5}, {"separable": 1}, {"depth": 0.5}):
        module = reduced(teacher, dict(member))
        mine = {parameter.data_ptr() for parameter in module.parameters()}
        assert mine.isdisjoint(parameter.data_ptr() for parameter in model.parameters())
        assert all(parameter.requires_grad for parameter in module.parameters())


class Layers(nn.Module):
    """Blocks as transformers number them: two of each layer."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"attention": nn.Linear(8, 8), "feed_forward": nn.Sequential(nn.Linear(8, 8), nn.Dropout())})
            for _ in range(layers)
        )
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer["attention"](x)  # type: ignore[index]  # a ModuleDict
            x = x + layer["feed_forward"](x)  # type: ignore[index]
        head: Tensor = self.head(x)
        return head


def test_blocks_of_one_layer_go_together_evenly_spread() -> None:
    network = Network(Layers(5).eval(), torch.randn(2, 8))
    gone = [f"layers.{place}.{block}" for place in (1, 3) for block in ("attention", "feed_forward.0")]
    assert dropped_blocks(network, 0.5) == gone
    assert dropped_blocks(network, 1.0) == []
    left = reduced(network, {"depth": 0.5})
    assert len(Network(left, torch.randn(2, 8)).layers) == 7  # a dropout does not keep what nothing reads


def test_what_cannot_be_made_smaller_says_so() -> None:
    network = Network(nn.Linear(4, 2), torch.randn(1, 4))
    with pytest.raises(SpaceError, match=r"the teacher has none that may go; give a kneepoint\.StudentFamily, or"):
        reduced_family(network)
