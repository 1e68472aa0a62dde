"""A policy's own operators and constants in the places that a template leaves open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.quantizers import dequantized_bias, quantize_bias, quantize_weight
from kneepoint.compression.simulation import operation_bias_scale
from kneepoint.deployment.group_packing import packed_groups
from kneepoint.deployment.template import DOMAIN, NAME, OPSET, SIZES, Template
from kneepoint.spaces.constant_folding import folded_operations
from kneepoint.spaces.network import LAYER_KINDS, Network, Operation
from kneepoint.spaces.policy import INTEGER_ACTIVATIONS
from kneepoint.spaces.quant_plan import FLOAT_WEIGHT, ActivationQuant, WeightQuant
from kneepoint.spaces.tracing import argument_of, operator_name

_NARROW: Mapping[str, tuple[type[np.generic], int]] = {"int4": (ml_dtypes.int4, 21), "int2": (ml_dtypes.int2, 25)}
"""Container to its element type, and the first opset that has it."""
_CONTRIBUTED = "com.microsoft"
_BLOCKWISE = 4
"""The accuracy level of a MatMulNBits that rounds its input to bytes, block by block."""
_MATRIX = 2
"""Axes of a value on which a linear layer is one Gemm."""


def write(template: Template, compressed: CompressedNetwork) -> ModelProto:
    """The artifact of ``compressed``.

    Args:
        template: Made from a candidate of the same architecture with the same parameters outside of layers; of the
            same width, too, unless it serves any.
        compressed: With every scale.

    Raises:
        ValueError: If the template does not serve the candidate's width.
    """
    if not template.serves(compressed):
        raise ValueError("the template has sizes written into it, and serves no other width")
    writer = _Writer(template, compressed)
    for node in template.model.graph.node:
        writer.visit(node)
    return writer.model()


@dataclass
class _Writer:
    """Copies a template's nodes and expands its markers, in order.

    Attributes:
        template: What is copied.
        compressed: What is put into the places left open.
        nodes: Written so far.
        constants: Written so far, by name.
        same: Values that are another value now, by name.
        weight_of: The operation whose weight a value is, by name.
        opset: The lowest that has every type in use.
    """

    template: Template
    compressed: CompressedNetwork
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    weight_of: dict[str, Operation] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    opset: int = OPSET

    @cached_property
    def groups(self) -> Mapping[str, int]:
        """Groups of every convolution of the candidate, by its operation's name."""
        nodes = self.compressed.graph.graph.nodes
        return {
            node.name: argument_of(node, 6, "groups", 1) for node in nodes if operator_name(node).startswith("conv")
        }

    @cached_property
    def folded(self) -> frozenset[str]:
        """Operations that ONNX Runtime computes once, when it loads."""
        return frozenset(folded_operations(self.network))

    @property
    def network(self) -> Network:
        """The structure."""
        return self.template.network

    def visit(self, node: NodeProto) -> None:
        """Copy ``node``, or what it stands for."""
        if node.domain != DOMAIN:
            self.copy(node)
            return
        name = helper.get_node_attr_value(node, NAME).decode()
        output = node.output[0]
        if node.op_type == "Value":
            self.value(name, self.same.get(node.input[0], node.input[0]), output)
            return
        if node.op_type == "Reshape":
            sizes = self.constant(f"{name}_sizes", np.array(helper.get_node_attr_value(node, SIZES), np.int64))
            self.node("Reshape", [self.same.get(node.input[0], node.input[0]), sizes], output)
            return
        if node.op_type == "Parameter":
            self.same[output] = self.constant(name, self.compressed.state[name].numpy())
            return
        operation = self.network.operation_of[name]
        if node.op_type == "Weight":
            self.weight_of[output] = operation
            self.same[output] = self.convolution_weight(operation)
        elif node.op_type == "Bias":
            self.same[output] = self.bias(operation)
        elif node.op_type == "Linear":
            self.linear(operation, self.same.get(node.input[0], node.input[0]), output)
        else:
            self.embedding(operation, self.same.get(node.input[0], node.input[0]), output)

    def copy(self, node: NodeProto) -> None:
        copied = NodeProto()
        copied.CopyFrom(node)
        for index, name in enumerate(node.input):
            copied.input[index] = self.same.get(name, name)
        operation = next((self.weight_of[name] for name in node.input if name in self.weight_of), None)
        if operation is not None:
            groups = self.groups.get(operation.name, 1)
            _set_groups(copied, groups)
            if self.is_at_risk(operation):
                copied.input[0] = self.shielded(operation, groups)
        self.nodes.append(copied)

    def model(self) -> ModelProto:
        """What was written, with those of the template's constants that it reads."""
        source = self.template.model
        self.nodes = _live(self.nodes, {value.name for value in source.graph.output})
        read = {name for node in self.nodes for name in node.input}
        read.update(name for node in self.nodes for name in _names_inside(node))
        kept = [entry for entry in source.graph.initializer if entry.name in read and entry.name not in self.constants]
        graph = GraphProto(name=source.graph.name, node=self.nodes, initializer=[*kept, *self.constants.values()])
        graph.input.extend(source.graph.input)
        graph.output.extend(source.graph.output)
        model = ModelProto(ir_version=source.ir_version, graph=graph, functions=source.functions)
        used = {node.domain for node in self.nodes}
        model.opset_import.extend(
            entry for entry in source.opset_import if entry.domain and entry.domain != DOMAIN and entry.domain in used
        )
        model.opset_import.append(helper.make_opsetid("", self.opset))
        if _CONTRIBUTED in used:
            model.opset_import.append(helper.make_opsetid(_CONTRIBUTED, 1))
        return model

    # --- values ----------------------------------------------------------------------------------------------------

    def value(self, name: str, source: str, output: str) -> None:
        """QuantizeLinear and DequantizeLinear where the plan quantizes the value; nothing where it does not."""
        quant = self.compressed.plan.activations.get(name)
        if quant is None:
            self.same[output] = source
            return
        scale = self.constant(f"{name}_scale", np.float32(quant.scale))
        zero_point = self.constant(f"{name}_zero_point", _element_type(quant)(quant.zero_point))
        self.node("QuantizeLinear", [source, scale, zero_point], f"{name}_quantized")
        self.node("DequantizeLinear", [f"{name}_quantized", scale, zero_point], output)

    def is_at_risk(self, operation: Operation) -> bool:
        """Whether ONNX Runtime would quantize the weight of a float layer, with one scale for all channels.

        It does so (WeightBiasQuantization) for convolutions and Gemm between two quantized tensors. What was asked
        for, measured and priced is a float layer.
        """
        plan = self.compressed.plan
        if operation.kind not in LAYER_KINDS or operation.inputs[0] not in plan.activations:
            return False
        product = operation.kind == "linear" and len(operation.shape) != _MATRIX  # that one becomes a MatMul
        return not plan.runs_on_integers(operation) and not product and self.ends_quantized(operation)

    def ends_quantized(self, operation: Operation) -> bool:
        """Whether nothing but clamps stands between ``operation`` and a quantization."""
        name = operation.name
        while name not in self.compressed.plan.activations:
            readers = self.network.readers.get(name, ())
            if len(readers) != 1 or name in self.network.outputs or readers[0].function not in ("relu", "clip"):
                return False
            name = readers[0].name
        return True

    def shielded(self, operation: Operation, groups: int = 1) -> str:
        """The input of ``operation`` through a scale for every channel, all equal: its weight is then left alone."""
        name, shape = operation.inputs[0], self.compressed.state[operation.weight].shape
        quant = self.compressed.plan.activations[name]
        channels = shape[0] if operation.kind == "conv_transpose" else shape[1] * groups
        scales = self.constant(f"{name}_scales", np.full(channels, quant.scale, np.float32))
        zero_points = self.constant(f"{name}_zero_points", np.full(channels, quant.zero_point, _element_type(quant)))
        output = f"{operation.name}_shielded"
        self.node("DequantizeLinear", [f"{name}_quantized", scales, zero_points], output, axis=1)
        return output

    # --- layers ----------------------------------------------------------------------------------------------------

    def convolution_weight(self, operation: Operation) -> str:
        quant = self.quant(operation)
        stored = self.stored_weight(operation, quant)
        if not self.compressed.plan.runs_on_integers(operation):
            return self.unpacked(operation, quant, stored, quant.axis)
        output = f"{operation.name}_weight"
        self.node("DequantizeLinear", [stored, self.weight_scale(operation, quant)], output, axis=0)
        return output

    def bias(self, operation: Operation) -> str:
        """The bias of one call: the scale of an integer one depends on what the call reads."""
        name, scale = self.template.biases[operation.name], operation_bias_scale(operation, self.compressed.plan)
        value = self.compressed.state[name]
        if scale is None:
            return self.constant(name, value.numpy())
        stored = self.constant(f"{operation.name}_bias", quantize_bias(value, scale).numpy())
        steps = self.constant(f"{operation.name}_bias_scale", scale.numpy())
        self.node("DequantizeLinear", [stored, steps], f"{operation.name}_bias_float", axis=0)
        return f"{operation.name}_bias_float"

    def linear(self, operation: Operation, source: str, output: str) -> None:
        quant = self.quant(operation)
        if operation.layer in self.compressed.plan.dynamic:
            self.add_bias(operation, self.dynamic_product(operation, quant, source), output)
        elif quant.group_size:
            self.add_bias(operation, self.grouped_product(operation, quant, source), output)
        elif self.is_product(operation):
            product = f"{operation.name}_product"
            self.node("MatMul", [source, self.linear_weight(operation, quant, transposed=True)], product)
            self.add_bias(operation, product, output)
        else:
            if self.is_at_risk(operation):
                source = self.shielded(operation)
            weight = self.linear_weight(operation, quant, transposed=False)
            bias = [self.bias(operation)] if operation.name in self.template.biases else []
            self.node("Gemm", [source, weight, *bias], output, transB=1)

    def is_product(self, operation: Operation) -> bool:
        """Whether the layer is a MatMul, not a Gemm: any call is on more than (samples, features), or it has no bias.

        Among integers a Gemm does without a bias, too.
        """
        layer = self.network.layers.get(operation.layer)
        calls = layer.operations if layer else (operation.name,)
        operations = [self.network.operation_of[name] for name in calls]
        beyond = any(len(call.shape) != _MATRIX for call in operations if call.kind == "linear")
        needs_bias = operation.layer not in self.compressed.plan.integer_kernels
        return beyond or (needs_bias and operation.name not in self.template.biases)

    def linear_weight(self, operation: Operation, quant: WeightQuant, *, transposed: bool) -> str:
        """The weight as (out, in) for Gemm, as (in, out) for products.

        It is stored as it is read: ONNX Runtime folds a Transpose behind an integer weight for one reader and computes
        in float for more.
        """
        stored = self.stored_weight(operation, quant, transposed=transposed)
        if not self.compressed.plan.runs_on_integers(operation):
            return self.unpacked(operation, quant, stored, 1 if transposed else 0)
        scale = self.weight_scale(operation, quant)
        # ONNX Runtime makes an integer kernel only of a linear weight whose zero points are written out.
        channels = len(self.compressed.state[operation.weight])
        zero_points = self.constant(f"{operation.layer}.zero_point", np.zeros(channels, np.int8))
        output = f"{operation.name}_weight"
        self.node("DequantizeLinear", [stored, scale, zero_points], output, axis=1 if transposed else 0)
        return output

    def dynamic_product(self, operation: Operation, quant: WeightQuant, source: str) -> str:
        """A product of integers whose input is quantized with the range it has; ONNX Runtime makes it one kernel."""
        name = operation.name
        weight = self.stored_weight(operation, quant, transposed=True)
        quantized = [f"{name}_input", f"{name}_input_scale", f"{name}_input_zero_point"]
        self.nodes.append(helper.make_node("DynamicQuantizeLinear", [source], quantized, name=quantized[0]))
        self.node("MatMulInteger", [quantized[0], weight, quantized[2]], f"{name}_integers")
        self.node("Cast", [f"{name}_integers"], f"{name}_floats", to=TensorProto.FLOAT)
        self.node("Mul", [quantized[1], self.weight_scale(operation, quant)], f"{name}_scales")
        self.node("Mul", [f"{name}_floats", f"{name}_scales"], f"{name}_product")
        return f"{name}_product"

    def grouped_product(self, operation: Operation, quant: WeightQuant, source: str) -> str:
        """A product with a weight that has a scale for every group of input features: MatMulNBits.

        Accuracy level 0 computes in float32, level 4 on activations that the kernel rounds to 8 bits. The operator is
        described in https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
        """
        weight = self.compressed.state[operation.weight]
        packed = self.constant(operation.weight, packed_groups(self.integers(operation, quant), quant).numpy())
        self.nodes.append(
            helper.make_node(
                "MatMulNBits",
                [source, packed, self.weight_scale(operation, quant)],
                [f"{operation.name}_product"],
                name=f"{operation.name}_product",
                domain=_CONTRIBUTED,
                N=weight.shape[0],
                K=weight.shape[1],
                bits=quant.stored_bits,
                block_size=quant.group_size,
                accuracy_level=_BLOCKWISE if operation.layer in self.compressed.plan.blockwise else 0,
            )
        )
        return f"{operation.name}_product"

    def add_bias(self, operation: Operation, product: str, output: str) -> None:
        name = self.template.biases.get(operation.name)
        if name is None:
            self.rename_last(product, output)
            return
        # The integer kernel of a product has no bias, so it is added as a float, rounded as the simulator rounds it.
        value, scale = self.compressed.state[name], operation_bias_scale(operation, self.compressed.plan)
        if scale is None:
            bias = self.constant(name, value.numpy())
        else:
            bias = self.constant(f"{operation.name}_bias", dequantized_bias(value, scale).numpy())
        self.node("Add", [product, bias], output)

    def rename_last(self, written: str, output: str) -> None:
        """Give what was written last the name that its readers, or the network's caller, know."""
        self.nodes[-1].output[0] = output
        self.written.discard(written)

    def embedding(self, operation: Operation, indices: str, output: str) -> None:
        """Rows are looked up as they are stored, and become floats then."""
        quant = self.quant(operation)
        if quant.group_size:
            self.grouped_rows(operation, quant, indices, output)
            return
        stored = self.stored_weight(operation, quant)
        if quant.bits == FLOAT_WEIGHT.bits:
            self.node("Gather", [stored, indices], output)
            return
        rows = f"{operation.name}_rows"
        self.node("Gather", [stored, indices], rows)
        self.node("Cast", [rows], f"{rows}_float" if quant.integer else output, to=TensorProto.FLOAT)
        if quant.integer:
            self.node("Gather", [self.weight_scale(operation, quant, (-1, 1)), indices], f"{rows}_scale")
            self.node("Mul", [f"{rows}_float", f"{rows}_scale"], output)

    def grouped_rows(self, operation: Operation, quant: WeightQuant, indices: str, output: str) -> None:
        """Rows with a scale for every group of their elements: one kernel looks them up and unpacks them."""
        if operation.name in self.folded:
            self.folded_rows(operation, quant, indices, output)
            return
        width = self.compressed.state[operation.weight].shape[1]
        rows, columns = self.packed_rows(operation, quant)
        looked_up = output if columns == width else f"{operation.name}_filled"
        self.node(
            "GatherBlockQuantized",
            [rows, indices, self.weight_scale(operation, quant)],
            looked_up,
            domain=_CONTRIBUTED,
            bits=quant.stored_bits,
            block_size=quant.group_size,
            gather_axis=0,
            quantize_axis=1,
        )
        if columns != width:
            self.cut_off(looked_up, width, output)

    def folded_rows(self, operation: Operation, quant: WeightQuant, indices: str, output: str) -> None:
        """Rows at fixed places, in operators that ONNX Runtime folds when it loads, as it does no lookup of its own."""
        values = self.integers(operation, quant)
        rows, width = values.shape
        groups = -(-width // quant.group_size)
        filled = functional.pad(values, (0, groups * quant.group_size - width)).numpy()
        name = operation.weight
        self.node("Cast", [self.contained(name, filled, quant)], f"{name}_float", to=TensorProto.FLOAT)
        self.reshape(f"{name}_float", [rows, groups, quant.group_size], f"{name}_groups")
        self.node("Mul", [f"{name}_groups", self.weight_scale(operation, quant, [rows, groups, 1])], f"{name}_unpacked")
        self.reshape(f"{name}_unpacked", [rows, -1], f"{name}_filled")
        self.node("Gather", [f"{name}_filled", indices], f"{operation.name}_filled")
        self.cut_off(f"{operation.name}_filled", width, output)

    def reshape(self, source: str, sizes: Sequence[int], output: str) -> None:
        self.node("Reshape", [source, self.constant(f"{output}_sizes", np.array(sizes, np.int64))], output)

    def cut_off(self, source: str, width: int, output: str) -> None:
        """The first ``width`` elements along the last axis."""
        bounds = [
            self.constant(f"{source}_{name}", np.array([value], np.int64))
            for name, value in (("start", 0), ("end", width), ("axis", -1))
        ]
        self.node("Slice", [source, *bounds], output)

    def packed_rows(self, operation: Operation, quant: WeightQuant) -> tuple[str, int]:
        """The table as GatherBlockQuantized reads it, and how many columns it has.

        A tied one is stored as MatMulNBits reads it, all groups filled, and turned when a session loads. Any other is
        filled up to whole bytes.
        """
        packed = packed_groups(self.integers(operation, quant), quant)
        groups = packed.shape[1] * quant.group_size
        if self.network.is_tied(operation):
            stored, rows = self.constant(operation.weight, packed.numpy()), f"{operation.weight}_rows"
            self.reshape(stored, [len(packed), -1], rows)
            return rows, groups
        width = self.compressed.state[operation.weight].shape[1]
        size = math.ceil(width * quant.stored_bits / 8)
        return self.constant(operation.weight, packed.flatten(1)[:, :size].numpy()), size * 8 // quant.stored_bits

    # --- constants -------------------------------------------------------------------------------------------------

    def integers(self, operation: Operation, quant: WeightQuant) -> Tensor:
        return quantize_weight(self.compressed.state[operation.weight], quant)

    def quant(self, operation: Operation) -> WeightQuant:
        return self.compressed.plan.weights.get(operation.layer, FLOAT_WEIGHT)

    def stored_weight(self, operation: Operation, quant: WeightQuant, *, transposed: bool = False) -> str:
        """The weight in its container, as integers of 8 bits at least (in front of kernels that read no fewer)."""
        value = self.compressed.state[operation.weight]
        fixed = operation.layer not in self.network.layers or self.network.is_tied(operation)
        if transposed and fixed:  # others read it as it is
            output = f"{operation.name}_weight_transposed"
            self.node("Transpose", [self.constant(operation.weight, value.numpy())], output, perm=[1, 0])
            return output
        if quant.integer:
            value = quantize_weight(value, quant)
        elif quant.bits < FLOAT_WEIGHT.bits:
            value = value.half()
        return self.contained(operation.weight, (value.t() if transposed else value).numpy(), quant)

    def contained(self, name: str, values: npt.NDArray[Any], quant: WeightQuant) -> str:
        """A constant in its container; INT4 and INT2 get a Cast to INT8 behind them, which ONNX Runtime folds."""
        if quant.container not in _NARROW:
            return self.constant(name, values)
        dtype, opset = _NARROW[quant.container]
        self.opset = max(self.opset, opset)
        self.node("Cast", [self.constant(name, values.astype(dtype))], f"{name}_int8", to=TensorProto.INT8)
        return f"{name}_int8"

    def weight_scale(self, operation: Operation, quant: WeightQuant, shape: Sequence[int] | None = None) -> str:
        assert quant.scale is not None  # noqa: S101 - a calibrated plan has it
        scale, name = quant.scale.numpy(), f"{operation.layer}.scale"
        return self.constant(name, scale) if shape is None else self.constant(f"{name}.shaped", scale.reshape(shape))

    def unpacked(self, operation: Operation, quant: WeightQuant, stored: str, axis: int) -> str:
        """A stored weight as float32, by Cast and Mul, which ONNX Runtime folds when it loads.

        Behind a DequantizeLinear it would unpack convolution weights again at every inference, and replace products by
        MatMulNBits with activations of 8 bits.
        """
        if quant.bits == FLOAT_WEIGHT.bits:
            return stored
        floats = f"{operation.weight}_float"
        self.node("Cast", [stored], floats, to=TensorProto.FLOAT)
        if not quant.integer:
            return floats
        axes = self.compressed.state[operation.weight].dim()
        scale = self.weight_scale(operation, quant, [-1 if index == axis else 1 for index in range(axes)])
        self.node("Mul", [floats, scale], f"{operation.weight}_unpacked")
        return f"{operation.weight}_unpacked"

    def constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        """Written once; every use of a name is of the same value.

        Raises:
            ValueError: If the name already stands for a value of another shape: its readers would get the wrong one.
        """
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        if tuple(self.constants[name].dims) != value.shape:
            raise ValueError(f"{name} is written with shapes {tuple(self.constants[name].dims)} and {value.shape}")
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Written once: several calls of a layer share what does not depend on the call."""
        if output not in self.written:
            self.written.add(output)
            self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))


def _set_groups(node: NodeProto, groups: int) -> None:
    kept = [entry for entry in node.attribute if entry.name != "group"]
    node.ClearField("attribute")
    node.attribute.extend(kept)
    if groups != 1:
        node.attribute.append(helper.make_attribute("group", groups))


def _element_type(quant: ActivationQuant) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if quant.bits == INTEGER_ACTIVATIONS else np.uint16


def _live(nodes: Sequence[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """``nodes`` without those nobody reads: a value that all its readers shield is dequantized in vain."""
    needed = set(outputs)
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input, _names_inside(node))
    return kept[::-1]


def _names_inside(node: NodeProto) -> set[str]:
    """What the graphs inside a node (branches, loop bodies) read."""
    graphs = [entry.g for entry in node.attribute if entry.type == onnx.AttributeProto.GRAPH]
    inner = [child for graph in graphs for child in graph.node]
    return {name for child in inner for name in (*child.input, *_names_inside(child))}
