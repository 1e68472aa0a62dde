"""How good predictions are of families of networks that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from kneepoint.hardware_models.published.hierarchy import Hierarchy
from kneepoint.hardware_models.published.priors import PRIORS
from kneepoint.hardware_models.published.samples import Sample, families
from kneepoint.hardware_models.published.systems import System

Found = Mapping[System, Sequence[Sample]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """A published latency, and what is predicted for it.

    Attributes:
        sample: The network and its published latency.
        latency_ms: Predicted.
    """

    sample: Sample
    latency_ms: float

    @property
    def log_error(self) -> float:
        """The logarithm of predicted over published."""
        return float(np.log(self.latency_ms / self.sample.latency_ms))


def fitted(found: Found) -> Hierarchy:
    """The fit of systems of one world.

    Raises:
        StopIteration: If there are none.
    """
    world = next(iter(found)).world
    with threadpool_limits(1):  # small matrices: threads only wait for each other
        return Hierarchy.of(found, PRIORS[world])


def of_world(found: Found, world: str) -> dict[System, Sequence[Sample]]:
    """The systems of one world."""
    return {system: entries for system, entries in found.items() if system.world == world}


def leave_families_out(found: Found) -> Iterator[Prediction]:
    """Predictions for every sample of systems of one world, each from a fit that saw nothing of its family.

    A family is left out of all systems, not of the one that is predicted alone. A system that was measured with no
    other family cannot be predicted.
    """
    for family in families(found):
        rest = {system: [sample for sample in entries if sample.family != family] for system, entries in found.items()}
        rest = {system: entries for system, entries in rest.items() if entries}
        fit = fitted(rest)
        for system in rest:
            for sample in found[system]:
                if sample.family == family:
                    yield Prediction(sample, fit.latency_ms(sample))
