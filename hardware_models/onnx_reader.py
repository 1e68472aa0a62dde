"""ONNX in, operator table out.

Only shapes, types and a few small constants (axes) are read: weights are never unpacked, and external data is never
opened, because a model file is untrusted input.

A quantize-dequantize pair becomes the format of the tensor it stands on; a chain of Cast, DequantizeLinear or Mul on an
initializer becomes the description of a weight. See ``kneepoint.hardware_models.operators``.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from kneepoint.hardware_models.onnx_graph import OnnxGraph
from kneepoint.hardware_models.onnx_loading import load_with_shapes
from kneepoint.hardware_models.onnx_rules import lower_node
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.tasks.errors import DeviceError


def read_onnx(source: str | Path | onnx.ModelProto, batch: int = 1) -> OperatorTable:
    """Lowers an ONNX model into the operator table.

    Args:
        source: The path of a model, or a model (which is left as it is).
        batch: What a symbolic or unknown first dimension of the inputs stands for.

    Returns:
        The operators in the model's own order, activations with concrete shapes.

    Raises:
        DeviceError: If the file is missing or is not ONNX, or if a shape cannot be inferred.
    """
    model = load_with_shapes(source, batch)
    try:
        graph = OnnxGraph(model.graph)
        for node in model.graph.node:
            lower_node(graph, node)
        return graph.table()
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DeviceError(
            f"the ONNX model is malformed ({type(error).__name__}: {error}); onnx.checker.check_model says where"
        ) from error
