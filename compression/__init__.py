"""Policy to network: pruned, quantized, distilled and recovered."""

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.compressor import Compressor
from kneepoint.compression.distillation import Distillation, begin_distillation, distill
from kneepoint.compression.settings import CompressionSettings, QuantizationSettings
from kneepoint.compression.student_store import StudentStore

__all__ = [
    "CompressedNetwork",
    "CompressionSettings",
    "Compressor",
    "Distillation",
    "QuantizationSettings",
    "StudentStore",
    "begin_distillation",
    "distill",
]
