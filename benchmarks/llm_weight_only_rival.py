"""ONNX Runtime's own weight-only tools on the same float model: MatMulNBitsQuantizer, to nearest and HQQ."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

GROUP = 32
_OPERATORS = ("MatMul", "Gather")
_AXES = (("MatMul", 0), ("Gather", 1))
_TO_NEAREST: Mapping[str, bool] = {"symmetric": True, "asymmetric": False}


def folded(model: onnx.ModelProto, folder: Path) -> Path:
    """The float model, constants folded: its tied head is then a product with a constant, which the tools need."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    path = folder / "folded.onnx"
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return path


def variants(bits: int) -> Iterator[tuple[str, Any]]:
    """What the tools offer at so many bits without calibration data, by name."""
    for name, symmetric in _TO_NEAREST.items():
        yield (
            f"to nearest, {name}",
            DefaultWeightOnlyQuantConfig(
                block_size=GROUP,
                is_symmetric=symmetric,
                bits=bits,
                accuracy_level=0,
                op_types_to_quantize=_OPERATORS,
                quant_axes=_AXES,
            ),
        )
    yield (
        "HQQ",
        HQQWeightOnlyQuantConfig(block_size=GROUP, bits=bits, op_types_to_quantize=("MatMul",), quant_axes=_AXES),
    )


def quantized(path: Path, config: Any) -> onnx.ModelProto:
    """The model in ``path`` as the tools make it.

    Raises:
        Exception: Whatever the tools raise where they cannot.
    """
    logging.disable(logging.WARNING)
    quantizer = MatMulNBitsQuantizer(onnx.load(path), algo_config=config)
    quantizer.process()
    model: onnx.ModelProto = quantizer.model.model
    return model
