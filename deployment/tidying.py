"""What an exported model does not need to carry: traces, paths, defaults, made-up names and copies of constants."""

from __future__ import annotations

import re

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, defs

BATCH = "batch"
_WORTH_SHARING = 256
"""Bytes of a constant below which copies may stay."""


def tidy(model: ModelProto) -> None:
    """Remove stack traces and source paths, attributes at their defaults, inner shapes and copies; in place.

    The free batch dimension, which the exporter numbers, is called ``batch``.
    """
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.producer_name = "kneepoint"
    model.ClearField("producer_version")  # it would be torch's
    graph = model.graph
    for name in ("metadata_props", "doc_string", "value_info"):
        graph.ClearField(name)
    for entry in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    for node in graph.node:
        _drop_defaults(node, opset)
    _share_constants(graph)
    _name_batch(graph)


def _share_constants(graph: GraphProto) -> None:
    """Equal constants are stored once: torch.onnx writes masks and positions anew for every layer.

    A model with graphs inside of nodes (branches, loop bodies) is left alone.
    """
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for entry in graph.initializer:
        if len(entry.raw_data) >= _WORTH_SHARING and not _is_parameter(entry.name):
            known = first.setdefault((entry.data_type, tuple(entry.dims), entry.raw_data), entry.name)
            if known != entry.name:
                same[entry.name] = known
    if not same or any(entry.HasField("g") for node in graph.node for entry in node.attribute):
        return
    kept = [entry for entry in graph.initializer if entry.name not in same]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)


def _is_parameter(name: str) -> bool:
    """Whether it has the name that it has in the module, after which readers of the model call it."""
    return "." in name


def _drop_defaults(node: NodeProto, opset: int) -> None:
    if node.domain:
        return
    known = defs.get_schema(node.op_type, opset).attributes
    kept = [entry for entry in node.attribute if not _is_default(entry, known[entry.name].default_value)]
    node.ClearField("attribute")
    node.attribute.extend(kept)


def _is_default(attribute: AttributeProto, default: AttributeProto) -> bool:
    plain = AttributeProto()
    plain.CopyFrom(attribute)
    plain.ClearField("doc_string")
    return bool(plain.SerializeToString(deterministic=True) == default.SerializeToString(deterministic=True))


def _name_batch(graph: GraphProto) -> None:
    first = [value.type.tensor_type.shape.dim[:1] for value in graph.input]
    symbols = {dim.dim_param for dims in first for dim in dims if dim.dim_param}
    if not symbols:
        return
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(symbols)))})\b")
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = pattern.sub(BATCH, dim.dim_param)
