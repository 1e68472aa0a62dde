"""Policy to network: pruned, quantized, distilled and recovered."""

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.compressor import CompressionSettings, Compressor
from kneepoint.compression.distillation import Distillation, distill
from kneepoint.compression.student_store import StudentStore

__all__ = [
    "CompressedNetwork",
    "CompressionSettings",
    "Compressor",
    "Distillation",
    "StudentStore",
    "distill",
]
