"""A compressed network as ONNX: integer weights, QuantizeLinear and DequantizeLinear, a free batch dimension."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, fx

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.quantizers import quantize_bias, quantize_weight
from kneepoint.compression.simulation import (
    bias_of,
    insert_quantizers,
    operation_bias_scale,
    set_bias,
    tensors_of,
)
from kneepoint.deployment.packing import pack_weights
from kneepoint.deployment.quantized_operators import (
    TRANSLATIONS,
    dequantize,
    dequantize_from,
    quantize_dequantize,
    widen,
)
from kneepoint.spaces.network import Operation
from kneepoint.spaces.quant_plan import ActivationQuant
from kneepoint.spaces.tracing import Inputs, copy_graph_module, split_inputs
from kneepoint.tasks.errors import JobFailed

OPSET = 21


def to_onnx(compressed: CompressedNetwork, example_input: Inputs) -> onnx.ModelProto:
    """The artifact of ``compressed``.

    8-bit weights take a byte, 4-bit half a byte, 2-bit a quarter (INT4 and INT2 initializers behind a Cast to INT8, which
    ONNX Runtime folds when it loads), 16-bit two bytes (float16 behind a Cast).

    Args:
        compressed: With every scale.
        example_input: For shapes and types; the batch dimension of the artifact is free.

    Raises:
        JobFailed: If torch.onnx cannot write an operator of the network.
    """
    module = _export_graph(compressed)
    args, kwargs = split_inputs(example_input)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                _batch_of_two(args),
                kwargs=_batch_of_two(kwargs),
                dynamo=True,
                dynamic_shapes=_free_batch(kwargs or args),
                opset_version=OPSET,
                custom_translation_table=dict(TRANSLATIONS),
                verbose=False,
            )
    except Exception as error:  # the exporter raises many unrelated types
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JobFailed(f"torch.onnx could not export the network: {first_line[:300]}") from error
    assert program is not None  # noqa: S101 - what export returns under dynamo=True
    model = program.model_proto
    _strip(model)
    pack_weights(model, {compressed.network.layers[name].weight: quant for name, quant in compressed.plan.weights.items()})
    model.producer_name = "kneepoint"
    onnx.helper.set_model_props(model, {"kneepoint.policy": compressed.policy.id})
    return model


def _export_graph(compressed: CompressedNetwork) -> fx.GraphModule:
    """The simulator's graph with the exporter's operators in place of the simulated ones."""
    plan = compressed.plan
    state = tensors_of(compressed.folded)
    tensors: dict[str, Tensor] = {}

    def layer(graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        quant = plan.weights[operation.layer]
        name = operation.weight
        if quant.bits == 16:
            tensors[name] = state[name].half()
            _wrap_weight(graph, node, widen)
        if quant.scale is None:
            return
        tensors[name] = quantize_weight(state[name], quant)
        tensors[f"{operation.layer}.scale"] = quant.scale
        if operation.kind == "linear":  # ONNX Runtime makes a QGemm only of a weight with zero points
            tensors[f"{operation.layer}.zero_point"] = torch.zeros(len(quant.scale), dtype=torch.int8)
            names = (f"{operation.layer}.scale", f"{operation.layer}.zero_point")
            _wrap_weight(graph, node, dequantize_from, *names)
        else:
            _wrap_weight(graph, node, dequantize, f"{operation.layer}.scale")
        bias, scale = bias_of(node), operation_bias_scale(operation, plan)
        if bias is not None and scale is not None:
            tensors[f"{operation.name}_bias"] = quantize_bias(state[bias], scale)
            tensors[f"{operation.name}_bias_scale"] = scale
            set_bias(graph, node, f"{operation.name}_bias")
            _wrap(graph, node, 2, dequantize, f"{operation.name}_bias_scale")

    def activation(graph: fx.Graph, node: fx.Node, name: str, quant: ActivationQuant) -> fx.Node:
        tensors[f"{name}_scale"] = torch.tensor(quant.scale, dtype=torch.float32)
        tensors[f"{name}_zero_point"] = torch.tensor(quant.zero_point, dtype=torch.uint8)
        scale = graph.get_attr(f"{name}_scale")
        with graph.inserting_after(scale):
            zero_point = graph.get_attr(f"{name}_zero_point")
        with graph.inserting_after(zero_point):
            return graph.call_function(quantize_dequantize, (node, scale, zero_point))

    def edit(graph: fx.Graph) -> None:
        insert_quantizers(graph, compressed.network, plan, layer, activation)

    return copy_graph_module(compressed.folded, edit, tensors)


def _wrap_weight(graph: fx.Graph, node: fx.Node, target: Any, *attributes: str) -> None:
    _wrap(graph, node, 1, target, *attributes)


def _wrap(graph: fx.Graph, node: fx.Node, position: int, target: Any, *attributes: str) -> None:
    """Put ``target(argument, *attributes)`` in place of one argument of ``node``."""
    with graph.inserting_before(node):
        extra = tuple(graph.get_attr(name) for name in attributes)
        wrapped = graph.call_function(target, (node.args[position], *extra))
    node.args = (*node.args[:position], wrapped, *node.args[position + 1 :])


def _batch_of_two(inputs: Any) -> Any:
    """The exporter takes sizes 0 and 1 for constants."""
    return torch.utils._pytree.tree_map(
        lambda x: torch.cat([x[:1], x[:1]]) if isinstance(x, Tensor) and x.dim() else x, inputs
    )


def _free_batch(inputs: Any) -> Any:
    return torch.utils._pytree.tree_map(
        lambda x: {0: torch.export.Dim.DYNAMIC} if isinstance(x, Tensor) and x.dim() else None, inputs
    )


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and source paths, which are many kilobytes and nobody's business."""
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    for entry in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs missing optional packages and warns of its own deprecations; neither is the user's concern."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
