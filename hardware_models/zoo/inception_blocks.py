"""What the Inception networks from the second on are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kneepoint.hardware_models.zoo.builder import NetworkBuilder, Padding

Step = int | tuple[int, int | tuple[int, int]] | tuple[int, int | tuple[int, int], int]
"""A convolution: channels; its kernel, if not 1; its stride, if not 1. One with a stride does not pad."""

Branch = Sequence[Step]


def chain(b: NetworkBuilder, x: str, steps: Branch, *, strided_padding: Padding = 0) -> str:
    """Convolutions one behind the other, each with its norm and ReLU."""
    for step in steps:
        channels, kernel, stride = (*step, *(1, 1)[len(step) - 1 :]) if isinstance(step, tuple) else (step, 1, 1)
        padding = strided_padding if stride > 1 else "same"
        x = b.conv(x, channels, kernel, stride, padding=padding, activation="relu")
    return x


def module(b: NetworkBuilder, x: str, *branches: Branch, pool: Literal["max", "avg"] = "avg", projection: int) -> str:
    """Branches side by side, the last one a pool and a pointwise convolution to ``projection`` channels."""
    outputs = [chain(b, x, branch) for branch in branches]
    pooled = b.pool(x, pool, 3, 1, "same")
    return b.concat((*outputs, chain(b, pooled, (projection,))))


def reduction(b: NetworkBuilder, x: str, *branches: Branch, padding: Padding = 0) -> str:
    """Branches that end with a stride of 2 side by side, and a pool that does."""
    outputs = [chain(b, x, branch, strided_padding=padding) for branch in branches]
    return b.concat((*outputs, b.pool(x, "max", 3, 2, padding)))


def forked(b: NetworkBuilder, x: str, steps: Branch, *ends: Step) -> tuple[str, ...]:
    """A chain of convolutions, and what several ones make of its output."""
    x = chain(b, x, steps)
    return tuple(chain(b, x, (end,)) for end in ends)
