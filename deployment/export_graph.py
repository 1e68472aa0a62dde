"""The simulator's graph with the exporter's operators in place of the simulated ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.quantizers import dequantized_bias, quantize_bias, quantize_weight
from kneepoint.compression.simulation import bias_of, insert_quantizers, operation_bias_scale, set_bias
from kneepoint.deployment.quantized_operators import dequantize, dequantize_along, quantize, widen
from kneepoint.spaces.network import LAYER_KINDS, Operation
from kneepoint.spaces.quant_plan import ActivationQuant, WeightQuant
from kneepoint.spaces.tracing import argument_of, copy_graph_module, source_of, tensors_of


@dataclass(frozen=True)
class StoredWeight:
    """A weight as the exported graph holds it.

    Attributes:
        quant: Its format.
        values: The integers or floats, in the layout of the exported graph.
    """

    quant: WeightQuant
    values: Tensor


def export_graph(compressed: CompressedNetwork) -> tuple[fx.GraphModule, Mapping[str, StoredWeight]]:
    """The graph to hand to torch.onnx, and its weights by parameter name.

    Args:
        compressed: With every scale.
    """
    edit = _Edit(compressed, tensors_of(compressed.folded), {}, {})
    module = copy_graph_module(compressed.folded, edit.apply, edit.tensors)
    return module.eval(), edit.weights


@dataclass(frozen=True)
class _Edit:
    """The changes to one graph.

    Attributes:
        compressed: What is exported.
        state: Its float tensors.
        tensors: Tensors of the new graph that are not in ``state``, collected on the way.
        weights: Of the new graph, collected on the way.
    """

    compressed: CompressedNetwork
    state: Mapping[str, Tensor]
    tensors: dict[str, Tensor]
    weights: dict[str, StoredWeight]

    def apply(self, graph: fx.Graph) -> None:
        network = self.compressed.network
        insert_quantizers(graph, network, self.compressed.plan, self.layer, self.activation)
        for node in list(graph.nodes):
            operation = network.operation_of.get(node.name)
            if operation is not None and self.is_at_risk(operation):
                self.shield(graph, node, operation)

    def activation(self, graph: fx.Graph, node: fx.Node, name: str, quant: ActivationQuant) -> fx.Node:
        self.tensors[f"{name}_scale"] = torch.tensor(quant.scale, dtype=torch.float32)
        self.tensors[f"{name}_zero_point"] = torch.tensor(quant.zero_point, dtype=torch.uint8)
        scale = graph.get_attr(f"{name}_scale")
        with graph.inserting_after(scale):
            zero_point = graph.get_attr(f"{name}_zero_point")
        with graph.inserting_after(zero_point):
            quantized = graph.call_function(quantize, (node, scale, zero_point))
        with graph.inserting_after(quantized):
            return graph.call_function(dequantize_along, (quantized, scale, zero_point, 1))

    def is_at_risk(self, operation: Operation) -> bool:
        """Whether ONNX Runtime would quantize the weight of a float layer, with one scale for all channels.

        It does so (WeightBiasQuantization) for convolutions and Gemm between two quantized tensors. What was asked
        for, measured and priced is a float layer.
        """
        plan = self.compressed.plan
        if operation.kind not in LAYER_KINDS or operation.inputs[0] not in plan.activations:
            return False
        quant = plan.weights.get(operation.layer)
        float_weight = quant is None or not quant.integer
        product = operation.kind == "linear" and len(operation.shape) != 2  # that one becomes a MatMul
        return float_weight and not product and self.ends_quantized(operation)

    def ends_quantized(self, operation: Operation) -> bool:
        """Whether nothing but clamps stands between ``operation`` and a quantization."""
        network, name = self.compressed.network, operation.name
        while name not in self.compressed.plan.activations:
            readers = network.readers.get(name, ())
            if len(readers) != 1 or name in network.outputs or readers[0].function not in ("relu", "clip"):
                return False
            name = readers[0].name
        return True

    def shield(self, graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        """Make ``node`` read floats through a scale for every channel, all equal: its weight is then left alone."""
        name, weight = operation.inputs[0], self.state[operation.weight]
        grouped = operation.kind in ("depthwise_conv", "grouped_conv")
        channels = weight.shape[0] if operation.kind == "conv_transpose" else weight.shape[1]
        channels *= argument_of(node, 6, "groups", 1) if grouped else 1
        for kind in ("scale", "zero_point"):
            self.tensors[f"{name}_{kind}s"] = self.tensors[f"{name}_{kind}"].repeat(channels)
        with graph.inserting_before(node):
            scale, zero_point = graph.get_attr(f"{name}_scales"), graph.get_attr(f"{name}_zero_points")
            floats = graph.call_function(dequantize_along, (source_of(source_of(node)), scale, zero_point, 1))
        node.args = (floats, *node.args[1:])

    def layer(self, graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        quant = self.compressed.plan.weights[operation.layer]
        if quant.bits == 16:
            self.store(operation, quant, self.state[operation.weight].half())
            _wrap(graph, node, 1, widen)
        elif quant.integer and operation.kind == "linear":
            self.integer_linear(graph, node, operation, quant)
        elif quant.integer:
            self.store(operation, quant, quantize_weight(self.state[operation.weight], quant))
            _wrap(graph, node, 1, dequantize, f"{operation.layer}.scale")
            self.integer_bias(graph, node, operation)

    def store(self, operation: Operation, quant: WeightQuant, values: Tensor) -> None:
        self.tensors[operation.weight] = values
        self.weights[operation.weight] = StoredWeight(quant, values)
        if quant.scale is not None:
            self.tensors[f"{operation.layer}.scale"] = quant.scale

    def integer_linear(self, graph: fx.Graph, node: fx.Node, operation: Operation, quant: WeightQuant) -> None:
        """Zero points are written out: ONNX Runtime makes an integer kernel only of a linear weight that has them."""
        values = quantize_weight(self.state[operation.weight], quant)
        self.tensors[f"{operation.layer}.zero_point"] = torch.zeros(len(values), dtype=torch.int8)
        names = (f"{operation.layer}.scale", f"{operation.layer}.zero_point")
        if not self.beyond_two_axes(operation):
            self.store(operation, quant, values)
            _wrap(graph, node, 1, dequantize_along, *names, axis=0)
            self.integer_bias(graph, node, operation)
            return
        # torch.onnx would write a Transpose behind the weight; ONNX Runtime folds that for one reader and computes
        # in float for more.
        self.store(operation, quant, values.t().contiguous())
        _wrap(graph, node, 1, dequantize_along, *names, axis=1)
        self.as_matmul(graph, node, operation)

    def as_matmul(self, graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        """``node`` as a product with its transposed weight, plus its bias, in place so that its name stays."""
        source, weight = node.args[:2]
        name, scale = bias_of(node), operation_bias_scale(operation, self.compressed.plan)
        if name is None:
            node.target, node.args = torch.ops.aten.matmul.default, (source, weight)
            return
        # The integer kernel of a product has no bias, so it is added as a float, rounded as the simulator rounds it.
        bias = self.state[name] if scale is None else dequantized_bias(self.state[name], scale)
        self.tensors[f"{operation.name}_bias"] = bias
        with graph.inserting_before(node):
            product = graph.call_function(torch.ops.aten.matmul.default, (source, weight))
            added = graph.get_attr(f"{operation.name}_bias")
        node.target, node.args = torch.ops.aten.add.Tensor, (product, added)

    def beyond_two_axes(self, operation: Operation) -> bool:
        """Whether any call of the layer is on more than (samples, features)."""
        network = self.compressed.network
        calls = network.layers[operation.layer].operations
        return any(len(network.operation_of[name].shape) != 2 for name in calls)

    def integer_bias(self, graph: fx.Graph, node: fx.Node, operation: Operation) -> None:
        """The bias of one call: its scale depends on what the call reads."""
        bias, scale = bias_of(node), operation_bias_scale(operation, self.compressed.plan)
        if bias is None or scale is None:
            return
        name = f"{operation.name}_bias"
        self.tensors[name] = quantize_bias(self.state[bias], scale)
        self.tensors[f"{name}_scale"] = scale
        set_bias(graph, node, name)
        _wrap(graph, node, 2, dequantize, f"{name}_scale")


def _wrap(graph: fx.Graph, node: fx.Node, position: int, target: Any, *attributes: str, **keywords: int) -> None:
    """Put ``target(argument, *attributes, **keywords)`` in place of one argument of ``node``."""
    with graph.inserting_before(node):
        extra = tuple(graph.get_attr(name) for name in attributes)
        wrapped = graph.call_function(target, (node.args[position], *extra), dict(keywords))
    node.args = (*node.args[:position], wrapped, *node.args[position + 1 :])
