"""A stopwatch with the reference network of calibrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kneepoint.deployment.calibration.graph_builder import GraphBuilder
from kneepoint.deployment.device_program import Stopwatch, Timing, is_tight

__all__ = ["Stopwatch", "Timing", "is_tight", "reference_feeds", "reference_network", "stopwatch"]


def reference_network() -> bytes:
    """A small network, whose latency says whether the machine is itself."""
    graph = GraphBuilder(np.random.default_rng(0))
    x = graph.hardswish(graph.conv(graph.input(1, 32, 32, 32), 64, 3))
    serialized: bytes = graph.model([graph.unary("Sigmoid", graph.conv(x, 64))]).SerializeToString()
    return serialized


def reference_feeds() -> Mapping[str, Any]:
    """Its inputs."""
    return {"input0": np.ones((1, 32, 32, 32), np.float32)}


def stopwatch(threads: int, others: Sequence[int] = ()) -> Stopwatch:
    """One that times networks at a thread count.

    Args:
        threads: Inside an operator.
        others: Cores for all of them but this one; none to leave it to the system.
    """
    return Stopwatch(reference_network(), reference_feeds(), threads, others)
