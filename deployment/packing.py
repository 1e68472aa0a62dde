"""Weights in as many bits as they have: initializers of an exported model, repacked in place."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kneepoint.deployment.export_graph import StoredWeight
from kneepoint.deployment.quantized_operators import MARKER_DOMAIN, WIDEN
from kneepoint.tasks.errors import JobFailed

_NARROW = {4: (ml_dtypes.int4, 21), 2: (ml_dtypes.int2, 25)}
"""Bits to the element type, and the first opset that has it."""


def pack_weights(model: ModelProto, weights: Mapping[str, StoredWeight]) -> None:
    """Store every weight in its container, in place.

    INT4 and INT2 initializers get a Cast to INT8 behind them: ONNX Runtime folds the Cast when it loads the model and
    runs the layer with its 8-bit integer kernels. The opset of the model is raised where a container needs it.

    Args:
        model: As torch.onnx wrote it.
        weights: By parameter name, with the values that were handed to torch.onnx.

    Raises:
        JobFailed: If an integer weight is not among the initializers.
    """
    _resolve_markers(model)
    needed: dict[str, int] = {}
    for name, weight in weights.items():
        if weight.quant.integer:
            found = _initializer(model, name, weight)
            needed[found.name] = max(needed.get(found.name, 0), weight.quant.bits)
    for name, bits in needed.items():
        if bits in _NARROW:
            dtype, opset = _NARROW[bits]
            _narrow(model, name, dtype)
            _raise_opset(model, opset)


def _initializer(model: ModelProto, name: str, weight: StoredWeight) -> TensorProto:
    """The initializer of a weight: under its own name, or another's with equal values, which torch.onnx merges."""
    wanted = numpy_helper.from_array(weight.values.numpy(), name)
    entry: TensorProto
    for entry in model.graph.initializer:
        same = entry.data_type == wanted.data_type and entry.dims == wanted.dims
        if entry.name == name or (same and entry.raw_data == wanted.raw_data):
            return entry
    raise JobFailed(f"the exported graph has no initializer {name!r}, so its weight cannot be packed")


def _narrow(model: ModelProto, name: str, dtype: type[np.generic]) -> None:
    initializer = next(entry for entry in model.graph.initializer if entry.name == name)
    initializer.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(initializer).astype(dtype), name))
    unpacked = f"{name}_int8"
    for node in model.graph.node:
        for index, source in enumerate(node.input):
            if source == name:
                node.input[index] = unpacked
    model.graph.node.insert(0, helper.make_node("Cast", [name], [unpacked], name=f"{name}_cast", to=TensorProto.INT8))


def _resolve_markers(model: ModelProto) -> None:
    """Write the Cast that ``Widen`` stood for."""
    for node in model.graph.node:
        if node.domain == MARKER_DOMAIN and node.op_type == WIDEN:
            node.CopyFrom(_cast_of(node))
    kept = [entry for entry in model.opset_import if entry.domain != MARKER_DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _cast_of(node: NodeProto) -> NodeProto:
    return helper.make_node("Cast", list(node.input), list(node.output), name=node.name, to=TensorProto.FLOAT)


def _raise_opset(model: ModelProto, version: int) -> None:
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = max(entry.version, version)
