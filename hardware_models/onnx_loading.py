"""An untrusted ONNX file as a model with concrete shapes, its large constants left out."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import TensorProto

from kneepoint.hardware_models.shape_inference import SMALL, infer_shapes
from kneepoint.tasks.errors import DeviceError


def load_with_shapes(source: str | Path | onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A private copy of the model, local functions inlined, every shape inferred that can be.

    Args:
        source: The path of a model, or a model (which is left as it is).
        batch: What a symbolic or unknown first dimension of the inputs stands for.

    Raises:
        DeviceError: If the file is missing, is not ONNX or is of an unknown opset, or if a shape cannot be inferred.
    """
    if batch < 1:
        raise DeviceError(f"the batch is a positive number; got {batch}")
    model = _load(source)
    _fix_batch(model, batch)
    return infer_shapes(model)


def _load(source: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    """A private copy of the model, without the data of its large constants."""
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        where = "the given model"
    else:
        model, where = _load_file(Path(source)), str(source)
    if not model.graph.node or not model.opset_import:
        raise DeviceError(f"{where} is not an ONNX model: it holds no graph; pass a file written by an ONNX exporter")
    _check_opset(model, where)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for tensor in model.graph.initializer:
        _drop_large_data(tensor)
    return model


def _check_opset(model: onnx.ModelProto, where: str) -> None:
    """Operators change their meaning between opsets, so one that is not known is not guessed at."""
    newest = onnx.defs.onnx_opset_version()
    asked = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    if asked > newest:
        raise DeviceError(
            f"{where} is written in opset {asked}, and the onnx library installed here knows {newest}: export with an "
            "earlier opset, or upgrade onnx"
        )


def _load_file(path: Path) -> onnx.ModelProto:
    try:
        # Weights are described by their shapes, so data outside the file is never opened.
        return onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DeviceError(f"cannot read an ONNX model from {path}: {why}; pass the path of an .onnx file") from error


def _drop_large_data(tensor: TensorProto) -> None:
    if math.prod(tensor.dims) > SMALL:
        for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(name)


def _fix_batch(model: onnx.ModelProto, batch: int) -> None:
    """Replaces the symbolic first dimension of every input, wherever its name stands, by ``batch``."""
    constants = {tensor.name for tensor in model.graph.initializer}
    symbols = set()
    for value in model.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if value.name in constants or not dimensions or dimensions[0].dim_value > 0:
            continue
        if dimensions[0].dim_param:
            symbols.add(dimensions[0].dim_param)
        dimensions[0].dim_value = batch
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in symbols:
                dimension.dim_value = batch
