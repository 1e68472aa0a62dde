from __future__ import annotations

import numpy as np
import pytest

from kneepoint.deployment.calibration.micro_networks import draw
from kneepoint.deployment.runtime import open_session
from kneepoint.hardware_models.fusion import FUSION_RULES, fuse
from kneepoint.hardware_models.onnx_reader import read_onnx


@pytest.mark.parametrize("seed", range(12))
def test_every_micro_network_runs_and_can_be_read(seed: int) -> None:
    random = np.random.default_rng(seed)
    network = draw(random)
    session = open_session(network.model.SerializeToString())
    (output,) = session.run(None, network.feeds(random))
    assert output.shape[0] == network.batch
    assert np.isfinite(output).all()
    assert fuse(read_onnx(network.model, batch=network.batch), FUSION_RULES)


def test_equal_seeds_draw_equal_networks() -> None:
    first, second = (draw(np.random.default_rng([3, 4])).model.SerializeToString() for _ in range(2))
    assert first == second
