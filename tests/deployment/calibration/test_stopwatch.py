from __future__ import annotations

import numpy as np

from kneepoint.deployment.calibration.graph_builder import GraphBuilder
from kneepoint.deployment.calibration.stopwatch import Timing, is_tight, stopwatch
from kneepoint.deployment.machine import usable_cores


def test_a_network_is_timed_as_a_whole_and_node_by_node() -> None:
    graph = GraphBuilder(np.random.default_rng(0))
    model = graph.model([graph.unary("Relu", graph.conv(graph.input(2, 3, 8, 8), 16, 3))])
    timing = stopwatch(1).time(model.SerializeToString(), {"input0": np.ones((2, 3, 8, 8), np.float32)}, seconds=0)
    assert [(node.operator, node.elements) for node in timing.nodes] == [
        ("Conv", 2 * 16 * 8 * 8),
        ("ReorderOutput", 2 * 16 * 8 * 8),
    ]
    assert timing.total_us > 0
    assert all(node.microseconds > 0 for node in timing.nodes)


def test_other_threads_and_their_reference_run_on_the_cores_given() -> None:
    graph = GraphBuilder(np.random.default_rng(0))
    model = graph.model([graph.conv(graph.input(1, 32, 16, 16), 64, 3)]).SerializeToString()
    watch = stopwatch(2, others=usable_cores()[-1:])
    timing = watch.time(model, {"input0": np.ones((1, 32, 16, 16), np.float32)}, seconds=0)
    assert timing.total_us > 0
    assert min(watch.beats) > 0


def test_a_machine_that_slows_down_is_not_quiet() -> None:
    assert Timing(1.0, (), 1.02).quiet
    assert not Timing(1.0, (), 1.4).quiet


def test_a_median_is_tight_once_its_interval_is_narrow() -> None:
    assert is_tight([10.0, 10.1] * 20)
    assert not is_tight([10.0, 11.0] * 20)
    assert not is_tight([10.0] * 4 + [12.0])  # too few to leave any out
