"""Candidate to artifact: ONNX, the parity gate, measuring."""

from kneepoint.deployment.execution import Execution
from kneepoint.deployment.exporting import TARGETS, Artifact, export_network
from kneepoint.deployment.measuring import Comparison, Measurement, compare_latency, measure
from kneepoint.deployment.onnx_export import to_onnx
from kneepoint.deployment.parity import Parity
from kneepoint.deployment.runtime import kernel_counts

__all__ = [
    "TARGETS",
    "Artifact",
    "Comparison",
    "Execution",
    "Measurement",
    "Parity",
    "compare_latency",
    "export_network",
    "kernel_counts",
    "measure",
    "to_onnx",
]
