"""Published memory of networks in int8 on microcontrollers, and what a device file predicts of it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.published.judging import Pair
from kneepoint.hardware_models.workload import Workload
from kneepoint.hardware_models.zoo.registry import build

_PUBLISHED = Path(__file__).with_name("memory.csv")
_KIB = 1024


@dataclass(frozen=True)
class PublishedMemory:
    """A line of ``memory.csv``: a network that a vendor's tool compiled for an STM32H7.

    Attributes:
        network: As the zoo calls it. The wake-word network of 96 x 96 was published with five classes, not two.
        runtime: The tool with its version.
        activation_bytes: Of RAM, inputs and outputs among them; the runtime's own is apart.
        weight_bytes: Of flash; code is apart.
        document: Where it was published.
    """

    network: str
    runtime: str
    activation_bytes: float
    weight_bytes: float
    document: str


def published_memory() -> tuple[PublishedMemory, ...]:
    """All lines."""
    with _PUBLISHED.open(newline="") as file:
        return tuple(
            PublishedMemory(
                network=row["network"],
                runtime=row["runtime"],
                activation_bytes=float(row["activation_kib"]) * _KIB,
                weight_bytes=float(row["weights_kib"]) * _KIB,
                document=row["document"],
            )
            for row in csv.DictReader(file)
        )


def predicted_memory(device: Device, published: PublishedMemory) -> tuple[Pair, Pair]:
    """Peak activations and constants, published and as ``device`` predicts them, bytes."""
    table = build(published.network, precision="int8")
    cost = CostModel(device).cost(Workload.of(table, device.fusion))
    activations = Pair(published.activation_bytes, cost.peak_memory_bytes)
    return activations, Pair(published.weight_bytes, cost.storage_bytes)
