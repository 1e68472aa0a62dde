"""What is known of the channel axes while the flow walks through a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx

from kneepoint.spaces.channel_sets import ChannelSets, Runs
from kneepoint.spaces.tracing import as_node, shape_of, source_of


def layer_name(parameter: str) -> str:
    """The layer that a weight belongs to: ``stem.0`` for ``stem.0.weight``."""
    return parameter.removesuffix(".weight")


def module_path(node: fx.Node) -> str:
    """The module that made a call; empty where it is the network itself."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def computed_layer(node: fx.Node, weight: fx.Node) -> str:
    """The layer that ``node`` computes: that of its stored weight, or the module where the weight is computed."""
    return layer_name(str(weight.target)) if weight.op == "get_attr" else module_path(node) or node.name


@dataclass
class FlowState:
    """The axes known so far, and the sets that their channels belong to.

    Attributes:
        sets: Which channels vary together.
        axes: Of a parameter, by name and axis: what is known of it.
        values: The channel axis of a tensor, and its runs.
        pieces: The same for every tensor of a list, of operators that return one.
        layers: Output channels of every layer.
        bound: Parameters that the rule of the node being visited has dealt with.
        unbound: Parameters that a rule has not dealt with, the node that reads them, and why they must stay then.
        explained: Nodes that compute with stored tensors alone, and were dealt with where their result is read.
        has_caches: Whether an input that is lengthened by what the network computes has its channels, and varies with
            them: keys and values of the tokens before.
        caches: The channels of such inputs.
        heads: For reshapes that tell attention's heads apart, the axis that counts them.
    """

    sets: ChannelSets = field(default_factory=ChannelSets)
    axes: dict[tuple[str, int], Runs] = field(default_factory=dict)
    values: dict[fx.Node, tuple[int, Runs]] = field(default_factory=dict)
    pieces: dict[fx.Node, list[tuple[int, Runs]]] = field(default_factory=dict)
    layers: dict[str, Runs] = field(default_factory=dict)
    bound: set[str] = field(default_factory=set)
    unbound: list[tuple[str, fx.Node, str]] = field(default_factory=list)
    explained: set[fx.Node] = field(default_factory=set)
    has_caches: bool = False
    caches: list[Runs] = field(default_factory=list)
    heads: Mapping[fx.Node, int] = field(default_factory=dict)

    def bind(self, argument: object, axis: int, runs: Runs) -> None:
        """Tie an axis of a parameter to ``runs``; nothing where the optional argument is not given."""
        if not isinstance(argument, fx.Node):
            return
        if argument.op != "get_attr":
            self.sets.freeze(runs, f"its weight is computed ({argument.name})")
            return
        name = str(argument.target)
        self.bound.add(name)
        if (name, axis) in self.axes:
            self.sets.unite(self.axes[name, axis], runs, f"{name} is shared by layers that are cut differently")
        self.axes[name, axis] = runs

    def cache(self, nodes: Sequence[fx.Node], axis: int) -> Runs:
        """The channels of an input that is a cache, along ``axis``; all of ``nodes`` are that input."""
        runs = self.sets.new("", shape_of(nodes[0])[axis])
        self.values.update(dict.fromkeys(nodes, (axis, runs)))
        self.caches.append(runs)
        return runs

    def is_cached(self, runs: Runs) -> bool:
        """Whether channels are those of a cache."""
        held = {run.set for cache in self.caches for run in self.sets.resolve(cache)}
        return bool(runs) and all(run.set in held for run in self.sets.resolve(runs))

    def pin_unbound(self) -> None:
        """Fix every axis of parameters that somebody reads in a way that no rule knows, whoever else reads them."""
        pinned = {name: why for name, node, why in reversed(self.unbound) if node not in self.explained}
        for (parameter, _), runs in self.axes.items():
            if parameter in pinned:
                self.sets.freeze(runs, pinned[parameter])

    def layer_output(self, node: fx.Node, weight: fx.Node, axis: int) -> Runs:
        """The channels that a layer makes; those it made before where it is called again."""
        name = computed_layer(node, weight)
        known = self.axes.get((str(weight.target), axis)) if weight.op == "get_attr" else None
        leaving = known or self.sets.new(name, shape_of(weight)[axis])
        self.bind(weight, axis, leaving)
        self.layers[name] = leaving
        return leaving

    def entering(self, node: fx.Node, axis: int) -> Runs:
        """The channels of a layer's input; fixed ones where nothing is known of them."""
        source = source_of(node)
        known = self.values.get(source)
        if known is not None and known[0] == axis:
            return known[1]
        if known is not None:
            self.sets.freeze(known[1], f"layer {computed_layer(node, as_node(node.args[1]))} works across it")
        return self.sets.constant(shape_of(source)[axis], f"it depends on fixed channels ({source.name})")


Rule = Callable[[FlowState, fx.Node], str]
"""Passes channels on from a node's inputs to its output; returns why it cannot, or an empty string."""
