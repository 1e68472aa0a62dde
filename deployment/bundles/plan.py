"""The plan of a bundle: which networks it holds. Three numbers say it, so that results need not carry networks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kneepoint.deployment.calibration.micro_networks import MicroNetwork, draw
from kneepoint.deployment.calibration.probing import probes
from kneepoint.tasks.errors import DeviceError

FEWEST, MOST_FEW, MOST = 20, 100, 5000
USUAL_FEW, USUAL = 60, 600
_POOL = 77
"""Keeps these networks apart from those of a calibration."""
_LARGEST_BYTES = 8_000_000
"""A board may be slow to copy to, and have little memory; one network in eighteen is left out for it."""
_DEPLOYED = ("convolutional", "transformer")
"""Chains of one step are for kernels that a profiler cannot see; without one they say little of anything else."""


@dataclass(frozen=True)
class Planned:
    """One network of a bundle.

    Attributes:
        number: Its place, from 0.
        network: It.
        model: It, serialized.
    """

    number: int
    network: MicroNetwork
    model: bytes

    @cached_property
    def sha256(self) -> str:
        """Of the serialized network."""
        return hashlib.sha256(self.model).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What a bundle measures.

    Attributes:
        seed: Of the networks.
        count: How many there are.
        few: Whether they are timed as wholes, without a profiler.

    Raises:
        DeviceError: If a number is out of range.
    """

    seed: int
    count: int
    few: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        most = MOST_FEW if self.few else MOST
        if not FEWEST <= self.count <= most:
            kind = "a small bundle" if self.few else "a bundle"
            raise DeviceError(f"{kind} holds {FEWEST} to {most} networks; got {self.count}")
        if not 0 <= self.seed < 2**32:
            raise DeviceError(f"a seed is at least 0 and below 2^32; got {self.seed}")

    def networks(self) -> Iterator[Planned]:
        """All of them, in order; the same wherever this version draws them."""
        drawn, number = 0, 0
        while number < self.count:
            network = draw(np.random.default_rng([self.seed, _POOL, drawn]))
            drawn += 1
            if self._suits(network):
                yield Planned(number, network, network.model.SerializeToString())
                number += 1

    def _suits(self, network: MicroNetwork) -> bool:
        """Whether a network is small enough and, where it is timed as a whole alone, like those that are deployed."""
        like_deployed = network.style in _DEPLOYED and network.batch == 1
        return network.model.ByteSize() <= _LARGEST_BYTES and (like_deployed or not self.few)

    def probes(self) -> Iterator[Planned]:
        """Those that show what the runtime's optimizer does; whatever their size, of which they were chosen."""
        for number, (network, _) in enumerate(probes(self.seed)):
            yield Planned(number, network, network.model.SerializeToString())
