from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.spaces.student_prior import PREFERRED, preferred, prior


def test_half_of_the_prior_lies_where_it_is_said_to() -> None:
    low, high = (prior().cdf(math.log(share)) for share in PREFERRED)
    assert high - low == pytest.approx(0.5)


def test_most_of_those_chosen_are_of_the_preferred_size() -> None:
    members = [{"a": a, "b": b, "c": c} for a, b, c in itertools.product(range(6), range(6), range(3))]
    shares = [0.9 ** (2 * m["a"] + 2 * m["b"] + 3 * m["c"] + 1) for m in members]
    chosen = preferred(shares, members, 8)
    assert sum(PREFERRED[0] * 0.9 <= shares[place] <= PREFERRED[1] * 1.1 for place in chosen) >= 4
    assert len({members[place]["a"] for place in chosen}) > 3  # and differ otherwise


@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=40), st.integers(1, 12))
def test_as_many_as_are_wanted_are_chosen_once_each(shares: list[float], count: int) -> None:
    members = [{"number": place} for place in range(len(shares))]
    chosen = preferred(shares, members, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(members))
    assert chosen == preferred(shares, members, count)
