from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.spaces.channel_flow import channel_flow
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.widths import STEPS, kept_units, unit_channels
from kneepoint.tasks.errors import SpaceError

FRACTIONS = st.floats(0.001, 1.0)


@pytest.mark.parametrize(
    ("units", "fraction", "expected"),
    [
        (256, 0.3, 80),  # 76.8, to a multiple of 8
        (64, 0.3, 16),
        (48, 0.3, 16),  # 14.4, to a multiple of 4
        (20, 0.3, 6),
        (12, 0.3, 4),  # too narrow to be rounded to anything but whole channels
        (3, 0.01, 1),
        (256, 0.001, 8),
        (70, 0.99, 70),  # the next multiple would be wider than the group
        (70, 1.0, 70),
    ],
)
def test_known_widths(units: int, fraction: float, expected: int) -> None:
    assert kept_units(units, fraction) == expected


def test_units_of_many_channels_are_multiples_already() -> None:
    assert kept_units(12, 0.4, channels=64) == 5
    assert kept_units(64, 0.3, channels=2) == 20  # 40 channels
    assert kept_units(48, 0.5, multiple=12) == 24
    assert kept_units(96, 0.3, multiple=12) == 24
    assert kept_units(1000, 0.1234, multiple=1) == 123


@given(units=st.integers(1, 600), a=FRACTIONS, b=FRACTIONS, channels=st.integers(1, 12), multiple=st.integers(1, 17))
def test_widths_are_monotone_near_and_full_at_one(units: int, a: float, b: float, channels: int, multiple: int) -> None:
    low, high = (kept_units(units, fraction, channels, multiple) for fraction in sorted((a, b)))
    assert 1 <= low <= high <= units == kept_units(units, 1.0, channels, multiple)
    assert abs(low - units * min(a, b)) <= max(1.0, units / STEPS)


@given(units=st.integers(8, 600), eighths=st.lists(st.integers(1, 8), min_size=2, max_size=2, unique=True))
def test_fractions_an_eighth_apart_never_coincide(units: int, eighths: list[int]) -> None:
    assert len({kept_units(units, share / 8) for share in eighths}) == 2


@pytest.mark.parametrize("multiple", [0, -8, 2.0, True, "8"])
def test_bad_multiples_are_refused(multiple: int) -> None:
    with pytest.raises(SpaceError, match="channel_multiple is an integer of 1 or more; got"):
        Network(nn.Linear(2, 2), torch.randn(1, 2), multiple)


class Wide(nn.Module):
    """A wide feature map, flattened in front of a linear layer, and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 96, 3)
        self.flat = nn.Linear(96 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.flat(F.relu(self.stem(x)).flatten(1))
        return y


def test_a_network_rounds_its_widths_with_its_own_multiple() -> None:
    policy = Policy.build(keep={"stem": 0.3})
    counts = {m: Network(Wide(), torch.randn(1, 1, 4, 4), m).channels(policy)["stem"] for m in (1, 8, 12)}
    assert counts == {1: 29, 8: 32, 12: 24}


def test_a_unit_is_as_wide_as_on_the_axis_that_it_is_written_to(network_of: Callable[[str], Network]) -> None:
    flow = channel_flow(network_of("flattened").graph_module)
    assert unit_channels(flow)["conv"] == 1
