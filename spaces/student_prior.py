"""Which members of a large family are worth training: most of them at 5 to 15 % of the teacher's parameters.

A student much smaller than that seldom learns what the teacher knows, and one much larger seldom beats the teacher
itself in fewer bits. The prior is a normal distribution of the logarithm of the share of parameters, half of which lies
between 5 and 15 %. Its quantiles, evenly spaced, say how large the members should be that are tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from kneepoint.spaces.students import Member

PREFERRED = (0.05, 0.15)
"""Shares of the teacher's parameters between which half of the prior lies."""
_ALIKE = 0.15
"""Members whose logarithms of the share are nearer to each other than this count as equally large."""


def prior() -> NormalDist:
    """Of the natural logarithm of a student's share of the teacher's parameters."""
    low, high = map(math.log, PREFERRED)
    return NormalDist((low + high) / 2, (high - low) / 2 / NormalDist().inv_cdf(0.75))


def preferred(shares: Sequence[float], members: Sequence[Member], count: int) -> list[int]:
    """The places of ``count`` members as large as the prior asks for, as different as can be; all, if there are fewer.

    Args:
        shares: Of the teacher's parameters, for every member.
        members: All that may be chosen.
        count: How many to choose.

    Returns:
        In the order of ``members``.
    """
    if len(members) <= count:
        return list(range(len(members)))
    sizes, chosen = [math.log(share) for share in shares], list[int]()
    for number in sorted(range(count), key=lambda number: abs(2 * number + 1 - count)):  # the likeliest sizes first
        wanted = prior().inv_cdf((number + 0.5) / count)
        left = [place for place in range(len(members)) if place not in chosen]
        nearest = min(abs(sizes[place] - wanted) for place in left)
        alike = [place for place in left if abs(sizes[place] - wanted) <= nearest + _ALIKE]
        chosen.append(max(alike, key=lambda place: (_novelty(members, chosen, place), -abs(sizes[place] - wanted))))
    return sorted(chosen)


def _novelty(members: Sequence[Member], chosen: Sequence[int], place: int) -> int:
    """In how many axes a member differs from the one among those chosen that is most like it."""
    return min((_differences(members[place], members[other]) for other in chosen), default=0)


def _differences(a: Mapping[str, object], b: Mapping[str, object]) -> int:
    return sum(a.get(axis) != b.get(axis) for axis in {*a, *b})
