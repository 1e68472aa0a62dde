"""Many workloads together cost what each costs by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kneepoint.hardware_models import CostModel, Device, Workload, load_device
from kneepoint.hardware_models.device import Memory
from kneepoint.hardware_models.kernels import KERNEL_KINDS
from kneepoint.hardware_models.many_workloads import arena_rules, cost_of_many
from kneepoint.hardware_models.workload_file import WorkloadFile
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import LayerPolicy, Policy

PI, SERVER = load_device("raspberry-pi-4b"), load_device("x86-server")
BITS = (2, 4, 8, 16, 32)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        logits: Tensor = self.head(torch.relu(x + self.body(x)).mean(dim=(2, 3)))
        return logits


@pytest.fixture(scope="module")
def policies() -> tuple[Network, list[Policy]]:
    network = Network(Residual().eval(), torch.randn(1, 1, 8, 8))
    draw = np.random.default_rng(0)
    formats = [LayerPolicy.of_bits(bits) for bits in BITS]
    chosen = [
        Policy.build(
            keep={name: float(draw.choice([1.0, 0.5])) for name in network.groups},
            layers={name: formats[int(draw.integers(len(BITS)))] for name in network.layers},
        )
        for _ in range(12)
    ]
    return network, list({policy.id: policy for policy in chosen}.values())


class Contextual:
    """A kernel takes a microsecond for each bit of what was moved before it."""

    kernel_error, common_error, network_floor_us = 0.1, 0.05, 7.0

    def predict(self, workload: Workload) -> tuple[Any, Any]:
        return 1.0 + workload.surroundings[:, 0], workload.kind != KERNEL_KINDS.index("linear")


def contextual() -> Device:
    return Device.model_validate({**SERVER.model_dump(), "calibration": {"threads": {"1": Contextual()}}})


def with_memory(device: Device, **fields: Any) -> Device:
    return device.model_copy(update={"memory": Memory(**{**device.memory.model_dump(), **fields})})


@pytest.mark.parametrize(
    "device",
    [PI, SERVER, contextual(), with_memory(PI, region_kb=0, flash_mb=1.0), with_memory(PI, region_kb=64, growth=1)],
    ids=["pi", "server", "calibrated", "flash", "another arena"],
)
def test_costs_are_those_of_each_by_itself(
    device: Device, policies: tuple[Network, list[Policy]], tmp_path: Path
) -> None:
    network, listed = policies
    workloads = {policy.id: Workload.of(lower(network, policy), device.fusion) for policy in listed}
    path, rules = tmp_path / "w.jsonl", [arena_rules(PI.memory)]
    WorkloadFile(path, device.fusion, "run", rules).append(workloads)
    keys = [*workloads][::-1]
    many = cost_of_many(CostModel(device), WorkloadFile(path, device.fusion, "run", rules).workloads(keys))
    alone = CostModel(device).cost([workloads[key] for key in keys])
    assert many.latency_ms == pytest.approx([cost.latency_ms for cost in alone], rel=1e-12)
    assert many.latency_ms_error == pytest.approx([cost.latency_ms_error for cost in alone], rel=1e-12)
    assert many.peak_memory_bytes.tolist() == [cost.peak_memory_bytes for cost in alone]
    assert many.storage_bytes.tolist() == [cost.storage_bytes for cost in alone]
    if many.energy_mj is not None:
        assert many.energy_mj == pytest.approx([cost.energy_mj for cost in alone])
    assert (many.energy_mj is None) == (device.power is None)
