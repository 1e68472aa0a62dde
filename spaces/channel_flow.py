"""Which channels must be pruned together: the flow of channel axes through the traced graph.

Every axis that a layer creates starts as a set of channels of its own; operators pass sets on (convolution to
BatchNorm to activation), unite them (the two sides of a residual add), line them up (concatenation), take them apart
(chunks), repeat each channel (flattening a feature map) or tie channels together in blocks (the groups of a
convolution or of a GroupNorm). What is left are groups of channels that stand or fall together, in the spirit of
DepGraph (Fang et al., CVPR 2023), but read off the exported graph, which also gives every tensor's shape as a function
of the kept fractions. An operator without a rule freezes what enters it, and the parameters that it reads, with a
reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from kneepoint.spaces.attention_rules import ATTENTION_RULES
from kneepoint.spaces.axis_rules import AXIS_RULES, keep_axis
from kneepoint.spaces.axis_shapes import is_identity, stored_behind
from kneepoint.spaces.channel_sets import Runs
from kneepoint.spaces.flow_state import FlowState, module_path
from kneepoint.spaces.flow_state import layer_name as layer_name  # part of how a flow is read
from kneepoint.spaces.head_axes import head_axes
from kneepoint.spaces.layer_rules import LAYER_RULES
from kneepoint.spaces.tracing import is_number, is_tensor, operator_name, shape_of
from kneepoint.tasks.errors import SpaceError

_RULES = {**AXIS_RULES, **LAYER_RULES, **ATTENTION_RULES}


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
        sizes: Channels of every prunable group, by its name. A channel here is what is kept or dropped as a whole: a
            block of the layer's channels where they only make sense together.
        fixed: Why a layer's output channels cannot vary, by layer name.
    """

    parameters: dict[str, tuple[Layout, ...]]
    values: dict[str, tuple[int, Layout]]
    sizes: dict[str, int]
    fixed: dict[str, str]

    def restricted(self, graph_module: fx.GraphModule) -> ChannelFlow:
        """What remains of the flow in a part of the graph, under the same names.

        Args:
            graph_module: A copy of the graph that was followed, with nodes left out.
        """
        nodes = {node.name for node in graph_module.graph.nodes}
        read = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
        parameters = {name: layouts for name, layouts in self.parameters.items() if name in read}
        groups = {segment.group for layouts in parameters.values() for layout in layouts for segment in layout}
        layers = {layer_name(name) for name in read}
        return ChannelFlow(
            parameters,
            {name: value for name, value in self.values.items() if name in nodes},
            {name: size for name, size in self.sizes.items() if name in groups},
            {layer: why for layer, why in self.fixed.items() if layer in layers},
        )


def channel_flow(graph_module: fx.GraphModule, has_caches: bool = False) -> ChannelFlow:
    """Follow the channel axes of ``graph_module``.

    Args:
        graph_module: The result of :func:`kneepoint.spaces.tracing.trace`.
        has_caches: Whether inputs that are lengthened vary with what lengthens them, and may be returned so.
    """
    flow = FlowState(heads=head_axes(graph_module.graph), has_caches=has_caches)
    for node in graph_module.graph.nodes:
        _visit(flow, node)
    flow.pin_unbound()
    return _result(flow, graph_module)


def _visit(flow: FlowState, node: fx.Node) -> None:
    name = operator_name(node)
    if node.op not in ("call_function", "output") or is_number(node) or stored_behind(node) is not None:
        return  # what reads a stored tensor in another form deals with it
    flow.bound = set()
    why = "it is an output of the network" if node.op == "output" else _follow(flow, node, name)
    for source in node.all_input_nodes:
        if why and source in flow.values and not (node.op == "output" and flow.is_cached(flow.values[source][1])):
            flow.sets.freeze(flow.values[source][1], why)
        stored = stored_behind(source)
        if stored is not None and str(stored.target) not in flow.bound:
            flow.unbound.append((str(stored.target), node, why or f"{stored.target} is read by operator {name}"))


def _follow(flow: FlowState, node: fx.Node, name: str) -> str:
    """Pass channels on through one operator; why that cannot be done."""
    rule = keep_axis if is_identity(node) else _RULES.get(name)
    if rule is None:
        return f"operator {name} is not known to keep channels apart ({node.name})"
    try:
        return rule(flow, node)
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # an overload that nobody thought of
        raise SpaceError(
            f"the channels of operator {node.target} cannot be followed (node {node.name}, module "
            f"{module_path(node)!r}): {error}; write it with other operators"
        ) from error


def _result(flow: FlowState, module: fx.GraphModule) -> ChannelFlow:
    names = flow.sets.names()

    def layout(runs: Runs) -> Layout:
        return tuple(Segment(names.get(run.set), run.channels, run.repeat) for run in flow.sets.resolve(runs))

    parameters: dict[str, tuple[Layout, ...]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr" and is_tensor(node):
            name = str(node.target)
            parameters[name] = tuple(layout(flow.axes.get((name, axis), ())) for axis in range(len(shape_of(node))))
    values = {node.name: (axis, layout(runs)) for node, (axis, runs) in flow.values.items()}
    sizes = {name: flow.sets.width(item) for item, name in names.items()}
    return ChannelFlow(parameters, values, sizes, _fixed_layers(flow))


def _fixed_layers(flow: FlowState) -> dict[str, str]:
    found = {
        layer: [flow.sets.why_fixed(run) for run in flow.sets.resolve(runs)] for layer, runs in flow.layers.items()
    }
    return {layer: reasons[0] for layer, reasons in found.items() if all(reasons)}
