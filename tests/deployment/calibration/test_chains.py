"""Chains of short steps run in ONNX Runtime, and consist of few kinds of kernels."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from kneepoint.deployment.calibration.chains import draw_chain
from kneepoint.deployment.calibration.graph_builder import GraphBuilder
from kneepoint.deployment.calibration.micro_networks import MicroNetwork


def chain(seed: int, batch: int = 2) -> MicroNetwork:
    random = np.random.default_rng(seed)
    graph = GraphBuilder(random)
    return MicroNetwork(graph.model([draw_chain(graph, random, batch)]), batch, "chain")


@pytest.mark.parametrize("seed", range(30))
def test_every_chain_runs(seed: int) -> None:
    network = chain(seed)
    session = onnxruntime.InferenceSession(network.model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, network.feeds(np.random.default_rng(0)))
    assert output.shape[0] == network.batch
    assert np.isfinite(output).all()


def test_a_chain_repeats_one_step() -> None:
    for seed in range(20):
        operators = [node.op_type for node in chain(seed).model.graph.node]
        rarest = min(operators.count(kind) for kind in set(operators))
        assert len(operators) >= 6
        assert rarest >= 5


def test_equal_seeds_give_equal_chains() -> None:
    assert chain(3).model == chain(3).model
    assert chain(3).model != chain(4).model
