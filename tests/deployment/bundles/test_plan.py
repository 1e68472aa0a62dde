from __future__ import annotations

from itertools import islice

import pytest

from kneepoint.deployment.bundles.plan import Plan
from kneepoint.tasks.errors import DeviceError


def test_one_seed_draws_the_same_networks_again() -> None:
    first, second = ([one.sha256 for one in islice(Plan(3, 20).networks(), 4)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 4
    assert first != [one.sha256 for one in islice(Plan(4, 20).networks(), 4)]


def test_a_small_bundle_holds_networks_like_those_that_are_deployed() -> None:
    networks = [planned.network for planned in islice(Plan(0, 20, few=True).networks(), 10)]
    assert {network.style for network in networks} == {"convolutional", "transformer"}
    assert {network.batch for network in networks} == {1}


def test_no_network_is_too_large_to_copy_to_a_board() -> None:
    assert max(len(planned.model) for planned in islice(Plan(0, 30).networks(), 30)) <= 8_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 19, True), "a small bundle holds 20 to 100 networks; got 19"),
        ((0, 101, True), "20 to 100 networks; got 101"),
        ((0, 5001), "a bundle holds 20 to 5000 networks; got 5001"),
        ((-1, 60), r"at least 0 and below 2\^32; got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        Plan(*arguments)  # type: ignore[arg-type]  # a flag among numbers
