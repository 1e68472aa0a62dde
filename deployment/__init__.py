"""Candidate to artifact: ONNX, the parity gate, measuring."""

from kneepoint.deployment.execution import Execution
from kneepoint.deployment.exporting import TARGETS, Artifact, export_network
from kneepoint.deployment.onnx_export import to_onnx
from kneepoint.deployment.parity import Parity
from kneepoint.deployment.runtime import Measurement, kernel_counts, measure

__all__ = [
    "TARGETS",
    "Artifact",
    "Execution",
    "Measurement",
    "Parity",
    "export_network",
    "kernel_counts",
    "measure",
    "to_onnx",
]
