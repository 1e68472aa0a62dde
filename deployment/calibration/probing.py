"""What a runtime's optimizer makes of some networks: which of the known fusion rules hold there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kneepoint.deployment.calibration.executed import TimedNode, pair
from kneepoint.deployment.calibration.micro_networks import MicroNetwork, draw
from kneepoint.hardware_models.fusion import FUSION_RULES, fuse
from kneepoint.hardware_models.onnx_reader import read_onnx

RULE_SETS: tuple[tuple[str, ...], ...] = (
    tuple(FUSION_RULES),
    ("activation", "residual", "channels_last"),
    ("activation", "channels_last"),
    ("activation", "residual"),
    ("activation",),
)
"""Of two that explain as much the first is taken."""
PROBES = 12
_POOL = 99
"""Keeps these networks apart from those of a campaign."""


def probes(seed: int) -> Iterator[tuple[MicroNetwork, np.random.Generator]]:
    """The networks, each with what draws its inputs."""
    for index in range(PROBES):
        random = np.random.default_rng([seed, index, _POOL])
        yield draw(random), random


def best_rules(timed: Iterable[tuple[MicroNetwork, Sequence[TimedNode]]]) -> tuple[str, ...]:
    """The rules under which most kernels of some networks are nodes that the runtime executed, and fewest are not."""
    found = dict.fromkeys(RULE_SETS, 0)
    for network, nodes in timed:
        table = read_onnx(network.model, batch=network.batch)
        for rules in RULE_SETS:
            kernels = fuse(table, rules)
            found[rules] += 2 * len(pair(kernels, nodes)) - len(kernels)
    return max(found, key=lambda rules: found[rules])
