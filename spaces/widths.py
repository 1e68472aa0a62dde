"""How many channels of a group stay: a share of them, rounded to a width that devices like.

Vector units and blocked layouts work on 4, 8 or 16 channels at once, so that a layer of 33 channels costs as much as
one of 40. A width is therefore rounded to a multiple of :data:`CHANNEL_MULTIPLE` where that hardly moves it: one step
is an eighth of the group or less. Narrower groups take the largest divisor of the multiple that meets this rule (4 from
32 channels on, 2 from 16 on), and the narrowest are not rounded, so that fractions an eighth apart never coincide.
"""

from __future__ import annotations

import math

from kneepoint.spaces.channel_flow import ChannelFlow

CHANNEL_MULTIPLE = 8
STEPS = 8
"""The least number of steps a group has between nothing and its full width."""


def kept_units(units: int, fraction: float, channels: int = 1, multiple: int = CHANNEL_MULTIPLE) -> int:
    """How many of a group's units stay: at least one, all of them at 1.0, and never fewer at a larger fraction.

    Args:
        units: What is kept or dropped as a whole: a channel, or a block of them such as an attention head.
        fraction: The share to keep, in (0, 1].
        channels: Of one unit.
        multiple: What the number of kept channels should be divisible by; 1 for the nearest whole number of units.
    """
    if fraction >= 1.0:
        return units
    step = _step(units, channels, multiple)
    return min(units, step * max(1, math.floor(units * fraction / step + 0.5)))


def unit_channels(flow: ChannelFlow) -> dict[str, int]:
    """Channels of one unit of every group: the narrowest that a unit is on any axis of a parameter."""
    found: dict[str, int] = {}
    for layouts in flow.parameters.values():
        for segment in (segment for layout in layouts for segment in layout):
            if segment.group is not None:
                found[segment.group] = min(segment.repeat, found.get(segment.group, segment.repeat))
    return found


def _step(units: int, channels: int, multiple: int) -> int:
    """Units by which a width goes up and down."""
    divisors = (divisor for divisor in range(multiple, 0, -1) if multiple % divisor == 0)
    steps = (divisor // math.gcd(divisor, channels) for divisor in divisors)
    return next((step for step in steps if units >= STEPS * step), 1)
