"""A network traced once: its layers, its coupled channel groups, and its operators with symbolic shapes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from kneepoint.spaces.axis_shapes import is_identity
from kneepoint.spaces.blocks import Block, find_blocks, leave_out
from kneepoint.spaces.channel_flow import ChannelFlow, Layout, Segment, channel_flow, layer_name
from kneepoint.spaces.normal_forms import normalize_
from kneepoint.spaces.policy import GROUP_SIZES, INTEGER_ACTIVATIONS, UNTOUCHED, LayerPolicy, Policy
from kneepoint.spaces.tracing import (
    Inputs,
    argument_of,
    copy_graph_module,
    is_tensor,
    operator_name,
    shape_of,
    source_of,
    tensors_of,
    trace,
)
from kneepoint.spaces.widths import CHANNEL_MULTIPLE, kept_units, unit_channels
from kneepoint.tasks.errors import SpaceError, nearest

_KINDS = {
    "conv1d": "conv", "conv2d": "conv", "conv3d": "conv",
    "conv_transpose1d": "conv_transpose", "conv_transpose2d": "conv_transpose", "conv_transpose3d": "conv_transpose",
    "linear": "linear", "matmul": "matmul", "bmm": "matmul", "embedding": "embedding",
    "add": "add", "sub": "add", "mul": "mul", "div": "mul",
    "batch_norm": "batch_norm", "layer_norm": "layer_norm", "group_norm": "group_norm", "softmax": "softmax",
    "max_pool1d": "max_pool", "max_pool2d": "max_pool", "avg_pool1d": "avg_pool", "avg_pool2d": "avg_pool",
    "adaptive_avg_pool1d": "avg_pool", "adaptive_avg_pool2d": "avg_pool", "cat": "concat",
    "upsample_nearest2d": "resize", "upsample_bilinear2d": "resize", "transpose": "transpose", "permute": "transpose",
    "movedim": "transpose",
    "flatten": "view", "view": "view", "reshape": "view", "unsqueeze": "view", "squeeze": "view",
    "unflatten": "view",
}  # fmt: skip
_ACTIVATIONS = {
    "relu": "relu", "relu6": "clip", "hardtanh": "clip", "clamp": "clip", "sigmoid": "sigmoid", "tanh": "tanh",
    "hardswish": "hardswish", "silu": "silu", "gelu": "gelu", "hardsigmoid": "hardsigmoid", "leaky_relu": "leakyrelu",
    "elu": "elu", "selu": "selu", "celu": "celu", "softplus": "softplus", "mish": "mish", "prelu": "prelu",
    "abs": "abs", "erf": "erf", "exp": "exp", "floor": "floor", "log": "log", "neg": "neg", "pow": "pow",
    "reciprocal": "reciprocal", "round": "round", "sqrt": "sqrt",
}  # fmt: skip
_ONNX_NAMES = {
    "mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin", "slice": "Slice",
    "chunk": "Split", "split": "Split", "split_with_sizes": "Split", "pad": "Pad", "expand": "Expand",
    "instance_norm": "InstanceNormalization", "pixel_shuffle": "DepthToSpace", "where": "Where", "cond": "If",
    "gru": "GRU", "lstm": "LSTM", "select": "Gather", "index_select": "Gather", "repeat": "Tile",
    "masked_fill": "Where",
    "eq": "Equal", "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "logical_not": "Not",
    "bitwise_not": "Not", "logical_and": "And", "logical_or": "Or", "maximum": "Max", "minimum": "Min", "to": "Cast",
    "tril": "Trilu", "triu": "Trilu", "bitwise_and": "And", "__and__": "And", "bitwise_or": "Or", "__or__": "Or",
    "index": "Gather", "ne": "Not", "type_as": "Cast", "cumsum": "CumSum", "gather": "GatherElements",
    "einsum": "Einsum",
}  # fmt: skip
"""Operators without a kind that ONNX writes as one node: both readers of the operator table call them the same."""
LAYER_KINDS = frozenset({"conv", "depthwise_conv", "grouped_conv", "conv_transpose", "linear"})
VARIABLE_KINDS = LAYER_KINDS | {"embedding"}
"""Kinds whose bit-width may vary."""
TIED = "tied"
"""The kind of a layer whose weight is an embedding's table and a linear layer's matrix."""
_TIED_KINDS = {"embedding", "linear"}
WEIGHT_ONLY_KINDS = frozenset({"conv_transpose", "embedding"})
"""Kinds without an integer kernel in ONNX Runtime: their weights are stored in few bits, and are floats to compute."""
_FOLDING = frozenset({"conv", "linear", "conv_transpose"})
_PRODUCTS = frozenset({"addmm", "mm", "matmul", "bmm", "baddbmm", "einsum"})
"""Operators that compute a layer where a matrix that they read is stored."""
_REMEMBERED = 64
"""Networks with blocks left out that are kept ready."""


@dataclass(frozen=True)
class Operation:
    """One operator of the deployed network (BatchNorm folded where a convolution or linear layer precedes it).

    Attributes:
        name: The node's name in the traced graph, which is also the name of the tensor it writes.
        kind: A kind of :data:`kneepoint.hardware_models.operators.KINDS`.
        inputs: Names of the operations or network inputs it reads, in order; twice where it reads one twice.
        shape: Of its output for one sample of the example, nothing pruned.
        axis: The channel axis of the output, and its layout; None where it has none.
        function: Which activation, ``sub`` or ``div`` behind ``add`` and ``mul``, or the name of an operator the table
            does not know.
        weight: Name of the weight parameter, for layers and embeddings.
        biased: Whether the deployed layer has a bias (its own, or BatchNorm's).
        kernel: Spatial kernel size.
        free: The axes of ``shape`` that grow with the batch.
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
    free: tuple[int, ...] = (0,)

    @property
    def layer(self) -> str:
        """The module that holds its weight; empty for operators without one."""
        return layer_name(self.weight) if self.weight else ""


@dataclass(frozen=True)
class Layer:
    """A layer whose bit-width may vary.

    Attributes:
        name: Its module path, or its parameter's name where a function was called.
        kind: One of ``VARIABLE_KINDS``, or ``tied`` where an embedding and linear layers share the weight.
        weight: Name of the weight parameter.
        operations: Every operation that computes with the weight; more than one where it is shared.
    """

    name: str
    kind: str
    weight: str
    operations: tuple[str, ...]

    def admit(self, policy: LayerPolicy) -> LayerPolicy:
        """The nearest to ``policy`` that a layer of this kind can compute with.

        Transposed convolutions and embeddings have float activations; ranges of every batch are for linear layers, and
        scales for groups of features for those and for embeddings. What is tied is stored in groups, or in 32 bits, so
        that both of its readers can read it.
        """
        if self.kind == TIED:
            return _grouped(policy)
        return policy if self.kind == "linear" else _admitted(policy, self.kind)


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
        channel_multiple: What kept widths are rounded to a multiple of, where they are wide enough.
        turned: Names of matrices that the graph has as (out, in) and the module as (in, out), sharing memory.

    With ``has_caches``, keys and values that come in and go out lengthened vary with the heads: a network to be priced.

    Raises:
        SpaceError: If the module cannot be traced or has no layer, if its weights are not float32, if it returns what
            it does not compute, or the multiple is no positive integer.
    """

    def __init__(
        self,
        module: nn.Module,
        example_input: Inputs,
        channel_multiple: int = CHANNEL_MULTIPLE,
        *,
        has_caches: bool = False,
    ) -> None:
        if type(channel_multiple) is not int or channel_multiple < 1:
            raise SpaceError(f"channel_multiple is an integer of 1 or more; got {channel_multiple!r}")
        self.channel_multiple = channel_multiple
        self._whole = self
        self._reduced: dict[frozenset[str], Network] = {}
        graph_module = trace(module, example_input)
        _check_weights(graph_module)
        self.turned = normalize_(graph_module)
        graph_module.recompile()
        self._read(graph_module, channel_flow(graph_module, has_caches))
        self._check_outputs()

    def _read(self, graph_module: fx.GraphModule, flow: ChannelFlow) -> None:
        self.graph_module = graph_module
        self.flow = flow
        nodes = list(graph_module.graph.nodes)
        self._nodes = {node.name: node for node in nodes}
        self.folds = {node.name: source_of(node).name for node in nodes if _folds(node)}
        self.identities = {node.name: source_of(node).name for node in nodes if is_identity(node)}
        self.inputs = {node.name: shape_of(node) for node in nodes if node.op == "placeholder" and is_tensor(node)}
        self.operations = tuple(self._operation(node) for node in nodes if self._deployed(node))
        self.outputs = tuple(self._value(node) for node in nodes[-1].all_input_nodes)
        if not self.layers:
            raise SpaceError(
                "the network has no convolution or linear layer whose bits may vary, so there is nothing to compress"
            )

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
        """The layers whose bit-width may vary, in execution order.

        A weight that operators of several kinds read is not among them, unless it is a tied embedding: it is stored
        once, in a way that suits them all. Neither is that of a transposed convolution with groups, whose output
        channels lie along two axes of its weight.
        """
        found: dict[str, Layer] = {}
        for operation in self.operations:
            if operation.weight in self._variable_weights:
                known = found.get(operation.layer)
                uses = (*(known.operations if known else ()), operation.name)
                kind = TIED if known and known.kind != operation.kind else operation.kind
                found[operation.layer] = Layer(operation.layer, kind, operation.weight, uses)
        return found

    def varies(self, operation: Operation) -> bool:
        """Whether ``operation`` computes a layer whose bit-width may vary."""
        layer = self.layers.get(operation.layer)
        return layer is not None and operation.name in layer.operations

    def is_tied(self, operation: Operation) -> bool:
        """Whether its weight is that of an embedding and of a linear layer."""
        layer = self.layers.get(operation.layer)
        return layer is not None and layer.kind == TIED

    @cached_property
    def _variable_weights(self) -> frozenset[str]:
        kinds: dict[str, set[str]] = {}
        for operation in self.operations:
            if operation.weight:
                kinds.setdefault(operation.weight, set()).add(_kind_of_weight(operation, self.parameter_shapes))
        elsewhere = {
            str(node.target)
            for node in self.graph_module.graph.nodes
            if node.op == "get_attr" and any(_weight_node(user, operator_name(user)) is not node for user in node.users)
        }
        variable = {
            weight
            for weight, found in kinds.items()
            if found == _TIED_KINDS or (len(found) == 1 and found <= VARIABLE_KINDS)
        }
        return frozenset(variable - elsewhere)

    @cached_property
    def parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Full shape of every parameter, buffer and constant, by name."""
        return {name: tuple(value.shape) for name, value in self.tensors().items()}

    @property
    def groups(self) -> Mapping[str, int]:
        """Channels of every prunable group, by the name of the first layer that writes them.

        A channel here is what is kept or dropped as a whole: a block of the layer's channels where they only make sense
        together (a group of a convolution or of a GroupNorm).
        """
        return self.flow.sizes

    def channels(self, policy: Policy) -> dict[str, int]:
        """How many channels of every group ``policy`` keeps, rounded as :mod:`kneepoint.spaces.widths` says."""
        return {
            group: kept_units(size, policy.keep_of.get(group, 1.0), self._unit_channels[group], self.channel_multiple)
            for group, size in self.groups.items()
        }

    @cached_property
    def _unit_channels(self) -> Mapping[str, int]:
        return unit_channels(self.flow)

    @cached_property
    def blocks(self) -> Mapping[str, Block]:
        """The residual blocks that may be left out, by the module path that their layers share."""
        if self._whole is not self:
            return {name: block for name, block in self._whole.blocks.items() if block.addition in self._nodes}
        return find_blocks(self.graph_module.graph, {name: layer for name, layer in self._computed_layers() if layer})

    def without(self, blocks: Collection[str]) -> Network:
        """The network with these residual blocks left out; itself where there are none.

        Its graph, layers and channel groups are those that remain, under the same names; parameters are shared. It
        accepts the same policies, and is made once for every set of blocks (the last few are remembered).

        Raises:
            SpaceError: If a block is unknown, or no layer is left.
        """
        whole = self._whole
        _check_known("residual block", blocks, whole.blocks)
        missing = frozenset(whole.blocks) - frozenset(self.blocks)
        gone = missing.union(blocks)
        if gone == missing:
            return self
        if gone not in whole._reduced:
            if len(whole._reduced) >= _REMEMBERED:
                whole._reduced.pop(next(iter(whole._reduced)))
            whole._reduced[gone] = whole._without(gone)
        return whole._reduced[gone]

    def _without(self, blocks: Collection[str]) -> Network:
        reduced = object.__new__(Network)
        reduced.channel_multiple = self.channel_multiple
        reduced._whole = self
        reduced._reduced = {}
        reduced.turned = self.turned
        graph_module = copy_graph_module(
            self.graph_module, lambda graph: leave_out(graph, [self.blocks[name] for name in blocks])
        )
        reduced._read(graph_module, self.flow.restricted(graph_module))
        return reduced

    def check(self, policy: Policy) -> None:
        """Refuse a policy that names what the network does not have.

        What leaves the network with a residual block may be named, and means nothing then.

        Raises:
            SpaceError: Naming the first unknown layer, group or block and the nearest known one.
        """
        whole = self._whole
        _check_known("layer", policy.layer_of, whole.layers)
        _check_known("channel group", policy.keep_of, whole.groups)
        _check_known("residual block", sorted(policy.dropped_blocks), whole.blocks)
        for name, layer in policy.layer_of.items():
            known_layer = self.layers.get(name)
            if known_layer is not None and known_layer.admit(layer) != layer:
                raise SpaceError(
                    f"layer {name!r} is of kind {known_layer.kind} and cannot compute as {layer.name}; "
                    f"the nearest is {known_layer.admit(layer).name}"
                )

    @cached_property
    def floats(self) -> frozenset[str]:
        """Names of the values and of the stored tensors that hold floats."""
        nodes = [node for node in self._nodes.values() if is_tensor(node) and node.meta["val"].is_floating_point()]
        return frozenset(str(node.target) if node.op == "get_attr" else node.name for node in nodes)

    def argument(self, operation: Operation, position: int, name: str, default: Any) -> Any:
        """An argument of the call that an operation stands for, by position or by name."""
        return argument_of(self._nodes[operation.name], position, name, default)

    def node(self, operation: Operation) -> fx.Node:
        """The call in the traced graph that an operation stands for."""
        node: fx.Node = self._nodes[operation.name]
        return node

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers and constants by name (shared, not copied)."""
        return tensors_of(self.graph_module)

    def _check_outputs(self) -> None:
        """Refuse an output that no operation writes, which no file format has."""
        for index, name in enumerate(self.outputs):
            if name not in self.operation_of:
                node = self._nodes[name]
                what = f"the stored tensor {str(node.target)!r}, which does not depend on the input"
                given = what if node.op == "get_attr" else f"the input {name!r} as it is"
                raise SpaceError(f"every output must be computed; output {index} is {given}: return it outside forward")

    def _computed_layers(self) -> Iterator[tuple[str, str]]:
        """Operations that compute layers, with the layer's name: also layers that no kind is known for (GPT-2's)."""
        for operation in self.operations:
            if operation.kind in LAYER_KINDS:
                yield operation.name, operation.layer
            elif operator_name(self._nodes[operation.name]) in _PRODUCTS:
                stored = self.constants_of(operation)
                matrices = (name for name in stored if len(self.parameter_shapes[name]) > 1)
                yield operation.name, layer_name(next(matrices, ""))

    def _deployed(self, node: fx.Node) -> bool:
        gone = node.name in self.folds or node.name in self.identities
        return node.op == "call_function" and is_tensor(node) and not gone

    def _operation(self, node: fx.Node) -> Operation:
        name = operator_name(node)
        weight = _weight_node(node, name)
        kind = _kind(node, name, weight)
        folded = any(user.name in self.folds for user in node.users)
        return Operation(
            name=node.name,
            kind=kind,
            inputs=tuple(self._value(source) for source in _tensors_read(node) if not self._stored(source)),
            shape=shape_of(node),
            axis=self.flow.values.get(node.name),
            function=_function(operator_name(source_of(node)) if name == "getitem" else name, kind),
            weight=str(weight.target) if weight is not None else "",
            biased=kind in LAYER_KINDS and (folded or argument_of(node, 2, "bias", None) is not None),
            kernel=shape_of(weight)[2:] if weight is not None else _pool_kernel(node, kind),
            free=tuple(axis for axis, size in enumerate(node.meta["val"].shape) if not isinstance(size, int)),
        )

    def constants_of(self, operation: Operation) -> list[str]:
        """Names of the stored tensors that an operation reads, once each."""
        stored = (self._stored(source) for source in _tensors_read(self._nodes[operation.name]))
        return list(dict.fromkeys(name for name in stored if name))

    def _stored(self, node: fx.Node) -> str:
        """The name of the stored tensor that a node is, or hands on; empty for an activation."""
        while node.name in self.identities:
            node = source_of(node)
        return str(node.target) if node.op == "get_attr" else ""

    def _value(self, node: fx.Node) -> str:
        """The name of the deployed value: a folded BatchNorm's is the layer's before it."""
        name = node.name
        while name in self.folds or name in self.identities:
            name = self.folds.get(name) or self.identities[name]
        return name


def _check_weights(module: fx.GraphModule) -> None:
    for name, value in module.named_parameters():
        if value.is_floating_point() and value.dtype != torch.float32:
            raise SpaceError(
                f"weights must be float32; parameter {name!r} is {str(value.dtype).removeprefix('torch.')}: "
                "call model.float(), and give float32 inputs"
            )


def _check_known(kind: str, named: Collection[str], known: Collection[str]) -> None:
    unknown = [name for name in named if name not in known]
    if unknown:
        rule = f"a policy may only name what the network has; it has no {kind} {unknown[0]!r}"
        raise SpaceError(f"{rule}; {nearest(unknown[0], known)}")


def length(layout: Layout, channels: Mapping[str, int]) -> int:
    """Elements of an axis when each group keeps ``channels[group]``."""
    return sum(_kept(segment, channels) * segment.repeat for segment in layout)


def indices(layout: Layout, kept: Mapping[str, Tensor]) -> Tensor:
    """Which elements of a full axis remain when each group keeps the channels ``kept[group]`` (sorted indices)."""
    parts, offset = [], 0
    for segment in layout:
        given = kept.get(segment.group) if segment.group else None
        channels = torch.arange(segment.channels) if given is None else given
        parts.append((offset + channels.unsqueeze(1) * segment.repeat + torch.arange(segment.repeat)).flatten())
        offset += segment.channels * segment.repeat
    return torch.cat(parts)


def varies(layout: Layout) -> bool:
    """Whether any part of the axis belongs to a prunable group."""
    return any(segment.group is not None for segment in layout)


def _kept(segment: Segment, channels: Mapping[str, int]) -> int:
    return channels.get(segment.group, segment.channels) if segment.group else segment.channels


def _kind_of_weight(operation: Operation, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The operation's kind, or another word for one whose weight cannot be quantized channel by channel."""
    grouped = operation.kind == "conv_transpose" and shapes[operation.weight][1] != operation.shape[1]
    return "grouped transposed convolution" if grouped else operation.kind


def _tensors_read(node: fx.Node) -> list[fx.Node]:
    """One entry each time an operator reads a tensor; what takes one of a list reads what the list is made of."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    if operator_name(node) == "getitem":
        return _tensors_read(found[0])
    return [source for source in found if is_tensor(source)]


def _weight_node(node: fx.Node, name: str) -> fx.Node | None:
    """The stored weight of a layer or an embedding."""
    position = {"embedding": 0}.get(name, 1 if _KINDS.get(name) in LAYER_KINDS else None)
    weight = None if position is None else node.args[position]
    return weight if isinstance(weight, fx.Node) and weight.op == "get_attr" else None


def _kind(node: fx.Node, name: str, weight: fx.Node | None) -> str:
    kind = _KINDS.get(name, "activation" if name in _ACTIVATIONS else "other")
    if _is_global_pool(node, name):
        return "global_avg_pool"
    if weight is None:  # computed, so that it is an activation like any other
        return {"linear": "matmul", "conv": "other", "conv_transpose": "other", "embedding": "other"}.get(kind, kind)
    return _convolution_kind(node, weight) if kind == "conv" else kind


def _function(name: str, kind: str) -> str:
    if kind == "other":
        return _ONNX_NAMES.get(name, name)
    if name in ("sub", "div"):
        return name
    return _ACTIVATIONS.get(name, "")


def _folds(node: fx.Node) -> bool:
    """A BatchNorm that is the only reader of a layer, and has statistics, disappears into the layer's weights."""
    if operator_name(node) != "batch_norm" or node.args[5] or not isinstance(node.args[3], fx.Node):
        return False
    source = source_of(node)
    name = operator_name(source)
    weight = _weight_node(source, name)
    if _KINDS.get(name) not in _FOLDING or weight is None or len(source.users) != 1 or len(weight.users) != 1:
        return False
    bias = argument_of(source, 2, "bias", None)
    own = not isinstance(bias, fx.Node) or (bias.op == "get_attr" and len(bias.users) == 1)
    # BatchNorm works on axis 1, which is a linear layer's output axis only for two-dimensional inputs.
    aligned = name != "linear" or len(shape_of(source)) == 2
    grouped = _KINDS[name] == "conv_transpose" and argument_of(source, 6, "groups", 1) != 1
    return own and aligned and not grouped


def _convolution_kind(node: fx.Node, weight: fx.Node) -> str:
    if argument_of(node, 6, "groups", 1) == 1:
        return "conv"
    return "depthwise_conv" if shape_of(weight)[1] == 1 else "grouped_conv"


def _is_global_pool(node: fx.Node, name: str) -> bool:
    if name.startswith("adaptive_avg_pool"):
        return all(size == 1 for size in shape_of(node)[2:])
    dims = argument_of(node, 1, "dim", None)
    if name != "mean" or not isinstance(dims, list | tuple):
        return False
    rank = len(shape_of(source_of(node)))
    return rank > 2 and sorted(dim % rank for dim in dims) == list(range(2, rank))


def _pool_kernel(node: fx.Node, kind: str) -> tuple[int, ...]:
    if kind not in ("max_pool", "avg_pool") or operator_name(node).startswith("adaptive"):
        return ()
    sizes: Any = node.args[1]
    return tuple(sizes)


@cache
def _grouped(policy: LayerPolicy) -> LayerPolicy:
    """The same bits with a scale for every few features; 32 bits for 16."""
    if policy.group_size:
        return policy
    if not policy.integer:
        return UNTOUCHED
    rounds = policy.activation_bits == INTEGER_ACTIVATIONS
    activation_bits = INTEGER_ACTIVATIONS if rounds else None
    return replace(policy, activation_bits=activation_bits, dynamic=rounds, group_size=GROUP_SIZES[1])


@cache
def _admitted(policy: LayerPolicy, kind: str) -> LayerPolicy:
    """For anything but a linear layer."""
    group_size = policy.group_size if kind == "embedding" else 0
    floats = kind in WEIGHT_ONLY_KINDS or (policy.group_size and policy.dynamic)
    activation_bits = None if floats else policy.activation_bits
    return replace(policy, activation_bits=activation_bits, dynamic=False, group_size=group_size)
