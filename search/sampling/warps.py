"""Scales on which the contributions of choices may add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_LEAST_LOSS, _MOST_LOSS = 1e-3, 0.98
_LOWEST, _HIGHEST = -0.5, 8.0
LEAST = 0.01
"""What a sum cannot explain is a share of it, but of this at least."""


@dataclass(frozen=True)
class Warp:
    """A scale of losses.

    Attributes:
        name: For people.
        forth: From losses.
        back: To losses.
        slope: Of ``forth``, by loss.
        relative: Whether what a sum misses is a share of it; otherwise it is the same everywhere.
    """

    name: str
    forth: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    relative: bool

    def sizes(self, sums: Floats) -> Floats:
        """The unit of what a sum misses."""
        return np.maximum(np.abs(sums), LEAST) if self.relative else np.ones_like(sums)


PLAIN = Warp("plain", lambda loss: loss, lambda value: value, np.ones_like, relative=True)
"""Costs: every layer has its own."""
RATIOS = Warp(
    "ratios",
    lambda loss: np.log(np.maximum(loss, _LEAST_LOSS)),
    np.exp,
    lambda loss: 1 / np.maximum(loss, _LEAST_LOSS),
    relative=False,
)
"""Choices that multiply the whole: a narrower student."""
SATURATING = Warp(
    "saturating",
    lambda loss: -np.log(1 - np.minimum(loss, _MOST_LOSS)),
    lambda value: 1 - np.exp(-np.clip(value, _LOWEST, _HIGHEST)),
    lambda loss: 1 / (1 - np.minimum(loss, _MOST_LOSS)),
    relative=True,
)
"""Quality: what is ruined by one layer cannot be ruined again by the next."""
WARPS = (PLAIN, RATIOS, SATURATING)
