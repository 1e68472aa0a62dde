"""A network traced once: its layers, its coupled channel groups, and its operators with symbolic shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from kneepoint.spaces.channel_flow import ChannelFlow, Layout, Segment, channel_flow, layer_name
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.tracing import Inputs, operator_name, trace
from kneepoint.tasks.errors import SpaceError

_KINDS = {
    "conv1d": "conv", "conv2d": "conv", "conv3d": "conv",
    "conv_transpose1d": "conv_transpose", "conv_transpose2d": "conv_transpose", "conv_transpose3d": "conv_transpose",
    "linear": "linear", "matmul": "matmul", "bmm": "matmul", "embedding": "embedding",
    "add": "add", "sub": "add", "mul": "mul", "div": "mul",
    "batch_norm": "batch_norm", "layer_norm": "layer_norm", "group_norm": "group_norm", "softmax": "softmax",
    "max_pool1d": "max_pool", "max_pool2d": "max_pool", "avg_pool1d": "avg_pool", "avg_pool2d": "avg_pool",
    "adaptive_avg_pool1d": "avg_pool", "adaptive_avg_pool2d": "avg_pool", "cat": "concat",
    "upsample_nearest2d": "resize", "upsample_bilinear2d": "resize", "transpose": "transpose", "permute": "transpose",
    "flatten": "view", "view": "view", "reshape": "view", "unsqueeze": "view", "squeeze": "view",
}  # fmt: skip
_IDENTITIES = frozenset({"dropout", "contiguous", "clone", "alias", "detach"})
"""Operators that do nothing at inference, and are left out of the deployed network."""
_ACTIVATIONS = {
    "relu": "relu", "relu6": "clip", "hardtanh": "clip", "clamp": "clip", "sigmoid": "sigmoid", "tanh": "tanh",
    "hardswish": "hardswish", "silu": "silu", "gelu": "gelu", "hardsigmoid": "hardsigmoid", "leaky_relu": "leakyrelu",
    "elu": "elu", "softplus": "softplus", "mish": "mish",
}  # fmt: skip
LAYER_KINDS = frozenset({"conv", "depthwise_conv", "grouped_conv", "conv_transpose", "linear"})


@dataclass(frozen=True)
class Operation:
    """One operator of the deployed network (BatchNorm folded where a convolution or linear layer precedes it).

    Attributes:
        name: The node's name in the traced graph, which is also the name of the tensor it writes.
        kind: A kind of :data:`kneepoint.hardware_models.operators.KINDS`.
        inputs: Names of the operations or network inputs it reads.
        shape: Of its output for one sample of the example, nothing pruned.
        axis: The channel axis of the output, and its layout; None where it has none.
        function: Which activation, or the ATen name of an operator the table does not know.
        weight: Name of the weight parameter, for layers.
        biased: Whether the deployed layer has a bias (its own, or BatchNorm's).
        kernel: Spatial kernel size.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    axis: tuple[int, Layout] | None = None
    function: str = ""
    weight: str = ""
    biased: bool = False
    kernel: tuple[int, ...] = ()

    @property
    def layer(self) -> str:
        """The layer it computes; empty for operators without a weight."""
        return layer_name(self.weight) if self.weight else ""


@dataclass(frozen=True)
class Layer:
    """A layer whose bit-width may vary.

    Attributes:
        name: Its module path, or its parameter's name where a function was called.
        kind: One of ``LAYER_KINDS``.
        weight: Name of the weight parameter.
        operations: Every operation that computes with the weight; more than one where it is shared.
    """

    name: str
    kind: str
    weight: str
    operations: tuple[str, ...]


class Network:
    """A module traced once.

    Attributes:
        graph_module: The inference graph; shares its parameters with the module it was traced from.
        flow: Which channel axes vary together.
        folds: For every BatchNorm node that deployment folds away, the node it is folded into.
        identities: For every node that does nothing at inference, the node it passes on.
        operations: The deployed network's operators, in execution order.
        inputs: Names and shapes (one sample) of the network's inputs.
        outputs: Names of the operations the network returns.
    """

    def __init__(self, module: nn.Module, example_input: Inputs) -> None:
        self.graph_module = trace(module, example_input)
        self.flow: ChannelFlow = channel_flow(self.graph_module)
        nodes = list(self.graph_module.graph.nodes)
        self.folds = {node.name: _argument_node(node).name for node in nodes if _folds(node)}
        self.identities = {node.name: _argument_node(node).name for node in nodes if operator_name(node) in _IDENTITIES}
        self.inputs = {node.name: shape_of(node) for node in nodes if node.op == "placeholder" and is_tensor(node)}
        self.operations = tuple(
            self._operation(node) for node in nodes if self._deployed(node)
        )
        self.outputs = tuple(self._value(node) for node in nodes[-1].all_input_nodes)
        if not self.layers:
            raise SpaceError("the network has no convolution or linear layer, so there is nothing to compress")

    @cached_property
    def operation_of(self) -> Mapping[str, Operation]:
        """Operations by name."""
        return {operation.name: operation for operation in self.operations}

    @cached_property
    def readers(self) -> Mapping[str, tuple[Operation, ...]]:
        """For every value, the operations that read it."""
        readers: dict[str, list[Operation]] = {}
        for operation in self.operations:
            for name in dict.fromkeys(operation.inputs):
                readers.setdefault(name, []).append(operation)
        return {name: tuple(found) for name, found in readers.items()}

    @cached_property
    def layers(self) -> Mapping[str, Layer]:
        """The layers whose bit-width may vary, in execution order."""
        found: dict[str, Layer] = {}
        for operation in self.operations:
            if operation.kind in LAYER_KINDS and operation.layer:
                known = found.get(operation.layer)
                uses = (*(known.operations if known else ()), operation.name)
                found[operation.layer] = Layer(operation.layer, operation.kind, operation.weight, uses)
        return found

    @property
    def groups(self) -> Mapping[str, int]:
        """Channels of every prunable group, by the name of the first layer that writes them."""
        return self.flow.sizes

    def channels(self, policy: Policy) -> dict[str, int]:
        """How many channels of every group ``policy`` keeps: at least one, else the nearest whole number."""
        return {
            group: max(1, math.floor(size * policy.keep_of.get(group, 1.0) + 0.5)) for group, size in self.groups.items()
        }

    def check(self, policy: Policy) -> None:
        """Refuse a policy that names what the network does not have.

        Raises:
            SpaceError: Naming the first unknown layer or group.
        """
        for kind, named, known in (
            ("layer", policy.layer_of, self.layers),
            ("channel group", policy.keep_of, self.groups),
        ):
            unknown = [name for name in named if name not in known]
            if unknown:
                raise SpaceError(f"a policy may only name what the network has; it has no {kind} {unknown[0]!r}")

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name (shared, not copied)."""
        named = dict(self.graph_module.named_parameters(remove_duplicate=False))
        return {**named, **dict(self.graph_module.named_buffers(remove_duplicate=False))}

    def _deployed(self, node: fx.Node) -> bool:
        gone = node.name in self.folds or node.name in self.identities
        return node.op == "call_function" and is_tensor(node) and not gone

    def _operation(self, node: fx.Node) -> Operation:
        name = operator_name(node)
        kind = _KINDS.get(name, "activation" if name in _ACTIVATIONS else "other")
        weight = _weight_node(node) if kind in LAYER_KINDS else None
        if kind == "conv" and weight is not None:
            kind = _convolution_kind(node, weight)
        if _is_global_pool(node, name):
            kind = "global_avg_pool"
        if kind in LAYER_KINDS and weight is None:
            kind = "matmul"
        folded = next((user for user in node.users if _folds(user)), node)
        return Operation(
            name=node.name,
            kind=kind,
            inputs=tuple(self._value(source) for source in node.all_input_nodes if _is_activation(source)),
            shape=shape_of(node),
            axis=self.flow.values.get(node.name),
            function=_ACTIVATIONS.get(name, name if kind == "other" else ""),
            weight=str(weight.target) if weight is not None else "",
            biased=weight is not None and (folded is not node or (len(node.args) > 2 and node.args[2] is not None)),
            kernel=shape_of(weight)[2:] if weight is not None else _pool_kernel(node, kind),
        )

    def _value(self, node: fx.Node) -> str:
        """The name of the deployed value: a folded BatchNorm's is the layer's before it."""
        name = node.name
        while name in self.folds or name in self.identities:
            name = self.folds.get(name) or self.identities[name]
        return name


def length(layout: Layout, channels: Mapping[str, int]) -> int:
    """Elements of an axis when each group keeps ``channels[group]``."""
    return sum((_kept(segment, channels)) * segment.repeat for segment in layout)


def indices(layout: Layout, kept: Mapping[str, Tensor]) -> Tensor:
    """Which elements of a full axis remain when each group keeps the channels ``kept[group]`` (sorted indices)."""
    parts, offset = [], 0
    for segment in layout:
        channels = kept[segment.group] if segment.group in kept else torch.arange(segment.channels)
        parts.append((offset + channels.unsqueeze(1) * segment.repeat + torch.arange(segment.repeat)).flatten())
        offset += segment.channels * segment.repeat
    return torch.cat(parts)


def varies(layout: Layout) -> bool:
    """Whether any part of the axis belongs to a prunable group."""
    return any(segment.group is not None for segment in layout)


def is_tensor(node: fx.Node) -> bool:
    """Whether the node's value is one tensor."""
    return isinstance(node.meta.get("val"), Tensor)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The node's shape, with 1 in place of the free batch dimension."""
    return tuple(size if isinstance(size, int) else 1 for size in node.meta["val"].shape)


def _is_activation(node: fx.Node) -> bool:
    return node.op != "get_attr" and is_tensor(node)


def _kept(segment: Segment, channels: Mapping[str, int]) -> int:
    return channels.get(segment.group, segment.channels) if segment.group else segment.channels


def _argument_node(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101 - the schema of every operator asked about
    return source


def _weight_node(node: fx.Node) -> fx.Node | None:
    weight = node.args[1]
    return weight if isinstance(weight, fx.Node) and weight.op == "get_attr" else None


def _folds(node: fx.Node) -> bool:
    """A BatchNorm that is the only reader of a convolution or linear layer disappears into its weights."""
    if operator_name(node) != "batch_norm":
        return False
    source = _argument_node(node)
    if _KINDS.get(operator_name(source)) not in ("conv", "linear") or len(source.users) != 1:
        return False
    weight = _weight_node(source)
    # BatchNorm works on axis 1, which is a linear layer's output axis only for two-dimensional inputs.
    aligned = operator_name(source) != "linear" or len(shape_of(source)) == 2
    return weight is not None and len(weight.users) == 1 and aligned


def _convolution_kind(node: fx.Node, weight: fx.Node) -> str:
    groups: Any = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    if groups == 1:
        return "conv"
    return "depthwise_conv" if shape_of(weight)[1] == 1 else "grouped_conv"


def _is_global_pool(node: fx.Node, name: str) -> bool:
    if name.startswith("adaptive_avg_pool"):
        return all(size == 1 for size in shape_of(node)[2:])
    if name != "mean" or len(node.args) < 2:
        return False
    rank = len(shape_of(_argument_node(node)))
    dims: Any = node.args[1]
    return rank > 2 and sorted(dim % rank for dim in dims) == list(range(2, rank))


def _pool_kernel(node: fx.Node, kind: str) -> tuple[int, ...]:
    if kind not in ("max_pool", "avg_pool") or operator_name(node).startswith("adaptive"):
        return ()
    sizes: Any = node.args[1]
    return tuple(sizes)
