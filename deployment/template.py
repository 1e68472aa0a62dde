"""A network as ONNX with places left open: where a weight, a bias or a quantized value stands, there is a marker.

torch.onnx takes more than a second a network. So a network is exported once, in float, with a marker instead of
everything that depends on a policy; :mod:`kneepoint.deployment.writing` puts a policy's own operators there in
milliseconds. A marker is an operator of the domain ``kneepoint.markers`` that no optimizer touches:

- ``Weight`` and ``Bias`` (no input) stand for those of a convolution;
- ``Parameter`` (no input) for any other stored float that training or pruning changes;
- ``Reshape`` (value) for a reshape to a size that follows the width;
- ``Value`` for a quantization that a value may pass through;
- ``Linear`` (value) and ``Embedding`` (indices) for the whole layer, because its form depends on the policy.

Each names the operation, the parameter or the value it stands for.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, fx

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.simulation import bias_of, insert_quantizers
from kneepoint.deployment.attention import spell_out_attention
from kneepoint.deployment.input_independence import compute_once
from kneepoint.deployment.views import idle_views, keep_sizes, keeps_batch, merge_views
from kneepoint.spaces.axis_shapes import UNUSUAL_BATCH, stored_behind
from kneepoint.spaces.network import LAYER_KINDS, Network, Operation, length, varies
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.quant_plan import ActivationQuant, QuantPlan
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import (
    Inputs,
    copy_graph_module,
    operator_name,
    set_argument,
    shape_of,
    source_of,
    split_inputs,
)
from kneepoint.tasks.errors import JobFailed

OPSET = 21
DOMAIN = "kneepoint.markers"
NAME = "operation"
"""The attribute of a marker that names its operation, or its value."""
SIZES = "sizes"
"""The attribute of a ``Reshape``, as ONNX's operator of the name takes it."""
_MARKED = LAYER_KINDS | {"embedding"}
_TREE_MAP: Callable[..., Any] = torch.utils._pytree.tree_map


@dataclass(frozen=True)
class Template:
    """A float network, exported once.

    Attributes:
        model: With markers.
        network: The structure.
        kept: Channels of the thinned groups in what was exported, by group.
        biases: Name of the bias parameter of every operation that has one.
        any_width: Whether it serves pruned versions of the network, too; some operators have sizes written into them.
    """

    model: onnx.ModelProto
    network: Network
    kept: Mapping[str, int]
    biases: Mapping[str, str]
    any_width: bool

    def serves(self, compressed: CompressedNetwork) -> bool:
        """Whether ``compressed`` has a width that the template can take."""
        return self.any_width or self.kept == _widths(compressed)


def template_of(compressed: CompressedNetwork, example_input: Inputs, *, shared: bool = False) -> Template:
    """The template for ``compressed``, and for every candidate that differs from it in layers' formats alone.

    Args:
        compressed: Whose values those parameters have that belong to no layer.
        example_input: For shapes and types; the batch dimension of the artifact is free.
        shared: Whether it should serve every candidate of the architecture: trained further, and, where no operator
            has sizes written into it, pruned. For a candidate that is not pruned itself.

    Raises:
        JobFailed: If torch.onnx cannot write an operator of the network.
    """
    network = compressed.network
    biases: dict[str, str] = {}
    widths = _widths(compressed)
    resized = _resized(network) if shared and not compressed.kept else {}
    any_width = shared and not compressed.kept and all(map(_can_stay_open, resized.values()))

    def edit(graph: fx.Graph) -> None:
        idle = idle_views(graph)
        keep_sizes(graph)
        compute_once(graph, compressed.state)
        for node in list(graph.nodes):
            operation = network.operation_of.get(node.name)
            if operation is not None and operation.weight and operation.kind in _MARKED:
                if bias := bias_of(node):
                    biases[operation.name] = bias
                _mark_layer(graph, node, operation, compressed.state)
            if any_width and node.name in resized and not operator_name(node).startswith("conv"):
                _open_shape(node, network)
        insert_quantizers(graph, network, _everything(network), lambda *_: None, _mark_value)
        spell_out_attention(graph, compressed.state)
        for node in idle:
            node.replace_all_uses_with(source_of(node))
        merge_views(graph, lambda node: _sizes(node, network, None if any_width else widths))
        for node in graph.nodes:
            if keeps_batch(node) and (sizes := _sizes(node, network, None if any_width else widths)):
                node.target, node.args, node.kwargs = _reshape, (node.name, node.args[0], (0, *sizes[1:])), {}
        if shared:
            _mark_parameters(graph, compressed.state)

    module = copy_graph_module(compressed.graph, edit, compressed.state)
    return Template(_exported(module.eval(), example_input), network, widths, biases, any_width)


def _resized(network: Network) -> dict[str, fx.Node]:
    """The nodes that a size is written into which changes when channels are cut, by name."""
    kept = {group: torch.arange(max(1, size // 2)) for group, size in network.groups.items()}
    pairs = zip(network.graph_module.graph.nodes, cut(network, kept).graph.nodes, strict=True)
    found = {node.name: node for node, smaller in pairs if _constants(node) != _constants(smaller)}
    nodes = network.graph_module.graph.nodes
    # torch.onnx writes the size it finds, also for a flatten, or where a size of -1 follows the width.
    flattened = (node for node in nodes if operator_name(node) in ("flatten", "reshape") and not stored_behind(node))
    return found | {node.name: node for node in flattened if _follows_width(node, network)}


def _follows_width(node: fx.Node, network: Network) -> bool:
    return varies(network.flow.values.get(node.name, (0, ()))[1])


def _sizes(node: fx.Node, network: Network, widths: Mapping[str, int] | None) -> list[int] | None:
    """The sizes of a value in the network of these widths, -1 for those of the batch; None if any width may come."""
    sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
    axis, layout = network.flow.values.get(node.name, (0, ()))
    if varies(layout):
        if widths is None:
            return None
        sizes[axis] = length(layout, widths)
    return sizes


def _constants(node: fx.Node) -> str:
    """The operator and its arguments, written out, nodes by their names."""
    return f"{node.target} {node.args} {node.kwargs}"


def _can_stay_open(node: fx.Node) -> bool:
    """Whether the size in a node's arguments may follow the width: that of a convolution's groups, or of a reshape."""
    name = operator_name(node)
    if name in ("view", "reshape", "flatten"):
        sizes = node.meta["val"].shape
        same = shape_of(node, UNUSUAL_BATCH)[0] == shape_of(source_of(node), UNUSUAL_BATCH)[0]  # not merged with others
        return not isinstance(sizes[0], int) and same and all(isinstance(size, int) for size in sizes[1:])
    return name.startswith("conv")


def _open_shape(node: fx.Node, network: Network) -> None:
    """A marker for a reshape that leaves the size which follows the width to be inferred, in place."""
    axis = network.flow.values[node.name][0]
    sizes = [-1 if index == axis else size for index, size in enumerate(shape_of(node))]
    node.target, node.args, node.kwargs = _reshape, (node.name, node.args[0], (0, *sizes[1:])), {}


def _mark_parameters(graph: fx.Graph, state: Mapping[str, Tensor]) -> None:
    """A marker for every other float that is stored: recovery trains it, and pruning may cut it."""
    for node in list(graph.nodes):
        name = str(node.target)
        if node.op == "get_attr" and node.users and name in state and state[name].dtype == torch.float32:
            with graph.inserting_before(node):
                marker = graph.call_function(_constant, ("Parameter", name, tuple(state[name].shape)))
            node.replace_all_uses_with(marker)


def _widths(compressed: CompressedNetwork) -> dict[str, int]:
    return {group: len(rows) for group, rows in compressed.kept.items()}


def _everything(network: Network) -> QuantPlan:
    """Every value that any policy can quantize: those that 8 bits everywhere do."""
    layers = {name: layer.admit(LayerPolicy.of_bits(8)) for name, layer in network.layers.items()}
    return QuantPlan.of(network, Policy.build(layers=layers))


def _mark_layer(graph: fx.Graph, node: fx.Node, operation: Operation, state: Mapping[str, Tensor]) -> None:
    """Put markers in place of what a policy may change about a layer; its node keeps its name."""
    shape = state[operation.weight].shape
    if operation.kind == "linear":
        node.target, node.args, node.kwargs = _call, ("Linear", operation.name, node.args[0], shape[0]), {}
    elif operation.kind == "embedding":
        node.target, node.args, node.kwargs = _call, ("Embedding", operation.name, node.args[1], shape[1]), {}
    else:
        bias = bias_of(node)
        with graph.inserting_before(node):
            set_argument(node, 1, graph.call_function(_constant, ("Weight", operation.name, tuple(shape))))
            if bias is not None:
                marker = graph.call_function(_constant, ("Bias", operation.name, tuple(state[bias].shape)))
                set_argument(node, 2, marker)


def _mark_value(graph: fx.Graph, node: fx.Node, name: str, quant: ActivationQuant) -> fx.Node:
    return graph.call_function(_call, ("Value", name, node, None))


def _constant(kind: str, operation: str, shape: tuple[int, ...]) -> Tensor:
    """A marker without an input."""
    marker: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}", (), {NAME: operation}, dtype=torch.float32, shape=shape, version=1
    )
    return marker


def _call(kind: str, operation: str, source: Tensor, features: int | None) -> Tensor:
    """A marker of one input, whose output has ``features`` along its last axis, or the shape of the input."""
    shape: list[int] = list(source.shape)
    if features is not None:
        shape = [*(shape[:-1] if kind == "Linear" else shape), features]
    marker: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}", [source], {NAME: operation}, dtype=torch.float32, shape=shape, version=1
    )
    return marker


def _reshape(name: str, source: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """A marker for a reshape; 0 stands for the batch, and one size of -1 is inferred."""
    known = math.prod(size for size in sizes[1:] if size > 0)
    shape = [source.shape[0], *(size if size > 0 else math.prod(source.shape[1:]) // known for size in sizes[1:])]
    marker: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::Reshape", [source], {NAME: name, SIZES: list(sizes)}, dtype=source.dtype, shape=shape, version=1
    )
    return marker


def _exported(module: fx.GraphModule, example_input: Inputs) -> onnx.ModelProto:
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
                verbose=False,
            )
    except Exception as error:  # the exporter raises many unrelated types
        raise JobFailed(f"torch.onnx could not export the network: {_innermost(error)}") from error
    assert program is not None  # noqa: S101 - what export returns under dynamo=True
    model: onnx.ModelProto = program.model_proto
    return model


def _batch_of_two(inputs: Any) -> Any:
    """The exporter takes sizes 0 and 1 for constants."""
    return _TREE_MAP(lambda x: torch.cat([x[:1], x[:1]]) if isinstance(x, Tensor) and x.dim() else x, inputs)


def _free_batch(inputs: Any) -> Any:
    return _TREE_MAP(lambda x: {0: torch.export.Dim.DYNAMIC} if isinstance(x, Tensor) and x.dim() else None, inputs)


def _innermost(error: BaseException) -> str:
    """The first line of what went wrong first; what the exporter wraps around it is advice to its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first_line[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs the optional packages it misses and warns of its own deprecations: neither concerns a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
