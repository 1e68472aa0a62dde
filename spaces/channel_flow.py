"""Which channels must be pruned together: the flow of channel axes through the traced graph.

Every axis that a layer creates starts as a set of channels of its own; operators pass sets on (convolution to
BatchNorm to activation), unite them (the two sides of a residual add), line them up (concatenation) or repeat each
channel (flattening a feature map). What is left are groups of channels that stand or fall together, in the spirit of
DepGraph (Fang et al., CVPR 2023), but read off the exported graph, which also gives every tensor's shape as a function
of the kept fractions. An operator that is not known here freezes what enters it, and the parameters that it reads, with
a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import fx

from kneepoint.spaces.channel_sets import ChannelSets, Run, Runs
from kneepoint.spaces.tracing import argument_of, as_node, is_tensor, operator_name, shape_of, source_of


@dataclass(frozen=True)
class Segment:
    """A part of an axis: ``channels`` of one group (None: fixed ones), each ``repeat`` elements wide."""

    group: str | None
    channels: int
    repeat: int = 1


Layout = tuple[Segment, ...]
"""An axis as the sequence of its segments; the empty layout is an axis nobody may cut."""


@dataclass
class ChannelFlow:
    """The outcome: layouts of parameters and of values, and why some channels are fixed.

    Attributes:
        parameters: For every parameter, buffer or constant tensor, by name, the layout of each axis.
        values: For every tensor node that has one, by node name, its channel axis and that axis's layout.
        sizes: Channels of every prunable group, by its name.
        fixed: Why a layer's output channels cannot vary, by layer name.
    """

    parameters: dict[str, tuple[Layout, ...]]
    values: dict[str, tuple[int, Layout]]
    sizes: dict[str, int]
    fixed: dict[str, str]


def channel_flow(graph_module: fx.GraphModule) -> ChannelFlow:
    """Follow the channel axes of ``graph_module``.

    Args:
        graph_module: The result of :func:`kneepoint.spaces.tracing.trace`.
    """
    flow = _Flow()
    for node in graph_module.graph.nodes:
        flow.visit(node)
    return flow.result(graph_module)


def layer_name(parameter: str) -> str:
    """The layer that a weight belongs to: ``stem.0`` for ``stem.0.weight``."""
    return parameter.removesuffix(".weight")


def is_identity(node: fx.Node) -> bool:
    """Whether an operator hands on its input as it is, at inference."""
    name = operator_name(node)
    if name == "dropout":
        return not node.args[2]
    if name == "to":
        return is_tensor(node) and bool(node.meta["val"].dtype == source_of(node).meta["val"].dtype)
    if name == "slice":
        return shape_of(node, _UNUSUAL_BATCH) == shape_of(source_of(node), _UNUSUAL_BATCH)
    return name in _IDENTITIES


_IDENTITIES = frozenset({"contiguous", "clone", "alias", "detach", "lift_fresh_copy"})
_ELEMENTWISE = frozenset({
    "relu", "relu6", "hardtanh", "sigmoid", "tanh", "hardswish", "silu", "gelu", "hardsigmoid", "leaky_relu", "elu",
    "selu", "celu", "softplus", "mish", "clamp", "neg", "abs", "sqrt", "rsqrt", "pow", "exp", "log", "dropout", "to",
})  # fmt: skip
_SPATIAL = frozenset({
    "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d",
})  # fmt: skip
_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
_TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
_JOIN = frozenset({"add", "sub", "mul", "div"})
_RESHAPE = frozenset({"flatten", "view", "reshape", "unsqueeze", "squeeze"})
_REDUCE = frozenset({"mean", "sum", "amax", "amin"})
_GROUPS = 6  # position of ``groups`` among the arguments of every convolution
_UNUSUAL_BATCH = 7919  # a prime that no other axis has, which tells the batch apart where shapes are compared

_Rule = Callable[[fx.Node], str]
"""Passes channels on from a node's inputs to its output; returns why it cannot, or an empty string."""


@dataclass
class _Flow:
    sets: ChannelSets = field(default_factory=ChannelSets)
    axes: dict[tuple[str, int], Runs] = field(default_factory=dict)
    """Of a parameter, by name and axis: what is known of it so far."""
    pinned: dict[str, str] = field(default_factory=dict)
    """Parameters that must keep their shape, and why."""
    values: dict[fx.Node, tuple[int, Runs]] = field(default_factory=dict)
    layers: dict[str, Runs] = field(default_factory=dict)
    """Output channels of every layer."""
    bound: set[str] = field(default_factory=set)
    """Parameters that the rule of the node being visited has dealt with."""

    def visit(self, node: fx.Node) -> None:
        name = operator_name(node)
        if node.op not in ("call_function", "output") or name == "sym_size":
            return
        self.bound = set()
        if node.op == "output":
            why = "it is an output of the network"
        else:
            rule = self.rule(node, name) if is_tensor(node) else None
            why = rule(node) if rule else f"operator {name} passes on no channels that we know of"
        for source in node.all_input_nodes:
            if why and source in self.values:
                self.sets.freeze(self.values[source][1], why)
            if source.op == "get_attr" and str(source.target) not in self.bound:
                self.pin(str(source.target), why or f"{source.target} is read by operator {name}")

    def rule(self, node: fx.Node, name: str) -> _Rule | None:
        if name in _ELEMENTWISE or is_identity(node):
            return self.keep_axis
        families: tuple[tuple[frozenset[str], _Rule], ...] = (
            (_SPATIAL, self.spatial),
            (_CONVOLUTIONS, self.convolution),
            (_TRANSPOSED, self.transposed_convolution),
            (_JOIN, self.join),
            (_RESHAPE, self.reshape),
            (_REDUCE, self.reduce),
            (frozenset({"linear"}), self.linear),
            (frozenset({"batch_norm", "prelu"}), self.per_channel),
            (frozenset({"cat"}), self.concatenate),
            (frozenset({"slice"}), self.slice),
            (frozenset({"transpose", "permute"}), self.transpose),
        )
        return next((rule for names, rule in families if name in names), None)

    # --- parameters -------------------------------------------------------------------------------------------------

    def bind(self, argument: object, axis: int, runs: Runs) -> None:
        """Tie an axis of a parameter to ``runs``."""
        if not isinstance(argument, fx.Node):
            return
        if argument.op != "get_attr":
            self.sets.freeze(runs, f"its weight is computed ({argument.name})")
            return
        name = str(argument.target)
        self.bound.add(name)
        if name in self.pinned:
            self.sets.freeze(runs, self.pinned[name])
        if (name, axis) in self.axes:
            self.sets.unite(self.axes[name, axis], runs, f"{name} is shared by layers that are cut differently")
        self.axes[name, axis] = runs

    def pin(self, name: str, why: str) -> None:
        """Fix every axis of a parameter, whoever else reads it."""
        self.pinned.setdefault(name, why)
        for (parameter, _), runs in self.axes.items():
            if parameter == name:
                self.sets.freeze(runs, why)

    def layer_output(self, weight: fx.Node, axis: int, channels: int) -> Runs:
        """The channels that a layer makes; those it made before where it is called again."""
        name = str(weight.target) if weight.op == "get_attr" else weight.name
        leaving = self.axes.get((name, axis)) or self.sets.new(layer_name(name), channels)
        self.bind(weight, axis, leaving)
        self.layers[layer_name(name)] = leaving
        return leaving

    def entering(self, node: fx.Node, axis: int) -> Runs:
        """The channels of a layer's input; fixed ones where nothing is known of them."""
        source = source_of(node)
        known = self.values.get(source)
        if known is not None and known[0] == axis:
            return known[1]
        if known is not None:
            self.sets.freeze(known[1], f"layer {layer_name(str(as_node(node.args[1]).target))} works across it")
        return self.sets.constant(shape_of(source)[axis], f"it depends on fixed channels ({source.name})")

    # --- layers -----------------------------------------------------------------------------------------------------

    def convolution(self, node: fx.Node) -> str:
        weight = as_node(node.args[1])
        groups, out = argument_of(node, _GROUPS, "groups", 1), shape_of(weight)[0]
        if groups == 1:
            self.bind(weight, 1, self.entering(node, 1))
            leaving = self.layer_output(weight, 0, out)
        elif groups == out == shape_of(source_of(node))[1]:
            leaving = self.entering(node, 1)
            self.bind(weight, 0, leaving)
            self.layers[layer_name(str(weight.target))] = leaving
        else:
            return self.grouped(node, weight, out)
        self.bind(argument_of(node, 2, "bias", None), 0, leaving)
        self.values[node] = (1, leaving)
        return ""

    def transposed_convolution(self, node: fx.Node) -> str:
        weight = as_node(node.args[1])
        if argument_of(node, _GROUPS, "groups", 1) != 1:
            return self.grouped(node, weight, shape_of(node)[1])
        self.bind(weight, 0, self.entering(node, 1))
        leaving = self.layer_output(weight, 1, shape_of(weight)[1])
        self.bind(argument_of(node, 2, "bias", None), 0, leaving)
        self.values[node] = (1, leaving)
        return ""

    def grouped(self, node: fx.Node, weight: fx.Node, channels: int) -> str:
        layer = layer_name(str(weight.target))
        why = f"layer {layer} is a grouped convolution"
        leaving = self.sets.constant(channels, why)
        self.layers[layer] = leaving
        self.values[node] = (1, leaving)
        return why

    def linear(self, node: fx.Node) -> str:
        weight = as_node(node.args[1])
        last = len(shape_of(node)) - 1
        self.bind(weight, 1, self.entering(node, last))
        leaving = self.layer_output(weight, 0, shape_of(weight)[0])
        self.bind(argument_of(node, 2, "bias", None), 0, leaving)
        self.values[node] = (last, leaving)
        return ""

    def per_channel(self, node: fx.Node) -> str:
        """BatchNorm and PReLU: vectors along axis 1."""
        source = source_of(node)
        if source not in self.values:
            return ""
        axis, runs = self.values[source]
        if axis != 1:
            return f"operator {operator_name(node)} works across it"
        vectors = [entry for entry in node.args[1:5] if isinstance(entry, fx.Node)]
        for vector in vectors:
            if shape_of(vector) != (1,):  # one slope for all channels
                self.bind(vector, 0, runs)
        self.values[node] = (axis, runs)
        return ""

    # --- operators without parameters -------------------------------------------------------------------------------

    def keep_axis(self, node: fx.Node) -> str:
        tensors = [source for source in node.all_input_nodes if is_tensor(source)]
        if len(tensors) > 1:
            return f"it meets other tensors in operator {operator_name(node)}"
        if tensors and tensors[0] in self.values:
            self.values[node] = self.values[tensors[0]]
        return ""

    def spatial(self, node: fx.Node) -> str:
        axis, _ = self.values.get(source_of(node), (1, ()))
        return self.keep_axis(node) if axis == 1 else f"operator {operator_name(node)} works across it"

    def slice(self, node: fx.Node) -> str:
        """Along another axis."""
        source = source_of(node)
        if source in self.values:
            axis, runs = self.values[source]
            if argument_of(node, 1, "dim", 0) % len(shape_of(node)) == axis:
                return "it is sliced"
            self.values[node] = (axis, runs)
        return ""

    def transpose(self, node: fx.Node) -> str:
        source = source_of(node)
        if source in self.values:
            axis, runs = self.values[source]
            self.values[node] = (_permutation(node).index(axis), runs)
        return ""

    def join(self, node: fx.Node) -> str:
        """Two tensors that broadcast against each other: what meets along the channels varies together."""
        sides = [side for side in node.args[:2] if isinstance(side, fx.Node) and is_tensor(side)]
        rank = len(shape_of(node))
        wide: dict[fx.Node, int] = {}  # where the channels of a side lie in the result
        for side in sides:
            if side in self.values and shape_of(side)[self.values[side][0]] > 1:
                wide[side] = self.values[side][0] + rank - len(shape_of(side))
        if not wide:
            return ""
        at = next(iter(wide.values()))
        why = f"it meets a tensor whose channels are fixed ({node.name})"
        if set(wide.values()) != {at}:
            return why
        runs = self.values[next(iter(wide))][1]
        for side in sides:
            place = at - rank + len(shape_of(side))
            if side in wide:
                self.sets.unite(runs, self.values[side][1], why)
            elif place >= 0 and shape_of(side)[place] != 1:
                if side.op != "get_attr":
                    return why
                self.bind(side, place, runs)
        self.values[node] = (at, runs)
        return ""

    def concatenate(self, node: fx.Node) -> str:
        parts = [part for part in node.all_input_nodes if part in self.values]
        if not parts:
            return ""
        listed = node.args[0]
        if not isinstance(listed, list | tuple):
            return "it is concatenated with a list that is computed"
        axis = argument_of(node, 1, "dim", 0) % len(shape_of(node))
        if {self.values[part][0] for part in parts} != {axis}:
            return f"it is concatenated along another axis ({node.name})"
        runs: list[Run] = []
        for part in map(as_node, listed):
            known = self.values.get(part)
            runs.extend(known[1] if known else self.sets.constant(shape_of(part)[axis], "it is fixed"))
        self.values[node] = (axis, tuple(runs))
        return ""

    def reshape(self, node: fx.Node) -> str:
        """A reshape that leaves the channel axis whole, or flattens it with axes behind it, which repeats channels."""
        source = source_of(node)
        if source not in self.values:
            return ""
        axis, runs = self.values[source]
        if operator_name(node) == "squeeze" and axis in _squeezed(node):
            return f"it is squeezed away where one channel is left ({node.name})"
        before, after = shape_of(source, _UNUSUAL_BATCH), shape_of(node, _UNUSUAL_BATCH)
        target = _axis_after(before, axis, after)
        if target is None:
            return f"it is reshaped in a way that mixes axes ({node.name})"
        repeat = after[target] // before[axis]
        self.values[node] = (target, tuple(Run(run.set, run.channels, run.repeat * repeat) for run in runs))
        return ""

    def reduce(self, node: fx.Node) -> str:
        """A mean, sum or extreme over other axes."""
        source = source_of(node)
        if source not in self.values:
            return ""
        axis, runs = self.values[source]
        rank = len(shape_of(source))
        dims = argument_of(node, 1, "dim", None)
        reduced = set(range(rank)) if not isinstance(dims, list | tuple) or not dims else {dim % rank for dim in dims}
        if axis in reduced:
            return f"it is summed up ({node.name})"
        keepdim = bool(argument_of(node, 2, "keepdim", False))
        self.values[node] = (axis if keepdim else axis - sum(dim < axis for dim in reduced), runs)
        return ""

    # --- outcome ----------------------------------------------------------------------------------------------------

    def result(self, module: fx.GraphModule) -> ChannelFlow:
        names, sizes = self.groups()

        def layout(runs: Runs) -> Layout:
            return tuple(Segment(names.get(self.sets.find(run.set)), run.channels, run.repeat) for run in runs)

        parameters: dict[str, tuple[Layout, ...]] = {}
        for node in module.graph.nodes:
            if node.op == "get_attr" and is_tensor(node):
                name = str(node.target)
                parameters[name] = tuple(layout(self.axes.get((name, axis), ())) for axis in range(len(shape_of(node))))
        values = {node.name: (axis, layout(runs)) for node, (axis, runs) in self.values.items()}
        return ChannelFlow(parameters, values, sizes, self.fixed())

    def groups(self) -> tuple[dict[int, str], dict[str, int]]:
        """Name of every set that may vary, by its representative, and the sets' sizes by name."""
        names: dict[int, str] = {}
        sizes: dict[str, int] = {}
        for item, origin in enumerate(self.sets.origin):
            root = self.sets.find(item)
            if not self.sets.why_fixed(item) and root not in names:
                names[root] = origin
                sizes[origin] = self.sets.width[root]
        return names, sizes

    def fixed(self) -> dict[str, str]:
        reasons = {layer: [self.sets.why_fixed(run.set) for run in runs] for layer, runs in self.layers.items()}
        return {layer: found[0] for layer, found in reasons.items() if all(found)}


def _axis_after(before: tuple[int, ...], axis: int, after: tuple[int, ...]) -> int | None:
    """Where an axis lies after a reshape, whole or as the leading part of a longer axis; None where it is torn."""
    left = math.prod(before[:axis])
    for target, size in enumerate(after):
        if math.prod(after[:target]) == left and size > 1:
            return target if size % before[axis] == 0 else None
    return None


def _squeezed(node: fx.Node) -> set[int]:
    """The axes that a squeeze removes where they have one element."""
    rank = len(shape_of(source_of(node)))
    dims = argument_of(node, 1, "dim", list(range(rank)))
    return {dim % rank for dim in (dims if isinstance(dims, list | tuple) else [dims])}


def _permutation(node: fx.Node) -> list[int]:
    """For every axis of the output, the axis of the input."""
    rank = len(shape_of(node))
    if operator_name(node) == "permute":
        return [dim % rank for dim in argument_of(node, 1, "dims", ())]
    order = list(range(rank))
    first, second = argument_of(node, 1, "dim0", 0) % rank, argument_of(node, 2, "dim1", 1) % rank
    order[first], order[second] = order[second], order[first]
    return order
