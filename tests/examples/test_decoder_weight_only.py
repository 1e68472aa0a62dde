from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

import kneepoint as kp
from kneepoint.compression import Compressor, StudentStore
from kneepoint.deployment import to_onnx
from kneepoint.deployment.parity import compare

EXAMPLE = Path(__file__).parents[2] / "examples" / "decoder_weight_only.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def test_the_decoder_of_the_example_in_a_mix_of_formats(example: dict[str, Any], tmp_path: Path) -> None:
    task = example["task"](steps=2)
    task.validation = [(inputs, targets) for inputs, targets in list(task.validation)[:2]]
    space = kp.joint_space(task, weight_bits=example["FORMATS"], keep=(1.0,), students=None)
    names = list(space.teacher.layers)
    assert space.teacher.layers[names[0]].kind == "tied"
    policy = space.policy(space.uniform(bits=32) | {f"bits/{name}": i % 5 for i, name in enumerate(names)})
    with torch.no_grad():
        compressed = Compressor(space, StudentStore(tmp_path)).compress(policy)
    parity = compare(to_onnx(compressed, task.example_input).SerializeToString(), task, compressed.module)
    assert parity.executed.value == pytest.approx(parity.simulated.value, rel=0.005)
