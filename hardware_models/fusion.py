"""The kernels that ONNX Runtime's CPU provider really executes for an operator table.

Each rule was read off the graphs that ONNX Runtime 1.31 writes after its own optimizer:

- an activation fuses into the convolution or linear layer before it, if nothing else reads the value between them;
- a relu (or clip) in front of a quantized tensor is the clamping of that quantization, and costs nothing;
- a kernel runs on integers only where what it reads, and mostly what it writes, is quantized to bytes. Around a float
  kernel stand explicit quantize and dequantize kernels, for activations (of 8 and of 16 bits) and, in foreign models,
  for int8 weights;
- a linear layer with a dynamic range is one integer kernel that quantizes its float input itself; where several read
  one value, it is quantized once for all of them;
- a weight with scales of groups is unpacked by its kernel (MatMulNBits), which computes in float;
- rows of a table of integers are looked up, cast and multiplied by their scales in kernels of their own;
- max pooling, transposing and reshaping move bytes as they are, so a format passes through them both ways;
- on other than two axes, or without a bias, a linear layer is a product. The addition of its bias is a kernel of its
  own, or is done by a gelu behind it; the kernels of dynamic ranges and packed weights add it themselves;
- constant factors before and behind a product of two activations are part of it;
- x sigmoid(x) is one kernel on floats; x hardsigmoid(x), which is what becomes of hardswish, is two;
- the sum in front of a norm over tokens is part of it, with the bias of one summand; so are transposes of the last two
  axes in front of a product;
- views are kernels that take time, although they move nothing.

At its highest level there is more: a bare float convolution takes the addition of a residual with its activation; on
x86 float convolutions compute with channels in blocks, between reorders; integer convolutions compute with channels
last, between transposes that the runtime moves as far as it can.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from kneepoint.hardware_models.blocked_layout import block_channels
from kneepoint.hardware_models.channels_last import put_channels_last
from kneepoint.hardware_models.direct_fusion import direct_nodes
from kneepoint.hardware_models.emission import Emission
from kneepoint.hardware_models.fusion_graph import FusionGraph
from kneepoint.hardware_models.grouping import group_operators
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.node_fusion import (
    expand_hardswish,
    fuse_residuals,
    fuse_skip_norms,
    fuse_transposed_operands,
    merge_splits,
    split_instead_of_gathering,
)
from kneepoint.hardware_models.node_kernels import kernel_of
from kneepoint.hardware_models.nodes import NodeGraph
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.transposes import move_transposes

FusionRule = Literal["activation", "residual", "blocked", "channels_last", "direct", "epilogue"]
RULES: tuple[FusionRule, ...] = get_args(FusionRule)
FUSION_RULES: tuple[FusionRule, ...] = RULES[:4]
"""Those of ONNX Runtime, at its highest level on x86."""


def fuse(table: OperatorTable, rules: Collection[str] = ("activation",)) -> tuple[Kernel, ...]:
    """The kernels of ``table``, in execution order.

    The outcome depends on structure, shapes and formats alone, never on names.

    Args:
        table: What the network computes.
        rules: Which of ``RULES`` the runtime applies on the device: ``activation`` on every CPU, ``residual``
            and ``channels_last`` at its highest level, ``blocked`` at that level on x86. ``direct`` is another runtime
            than ONNX Runtime, with ``epilogue`` one that compiles the network (``direct_fusion``).

    Raises:
        ValueError: If a rule is not one of ``RULES``.
    """
    if unknown := set(rules) - set(RULES):
        raise ValueError(f"fusion rules are {RULES}; got {sorted(unknown)}")
    if "direct" in rules:
        nodes = direct_nodes(table, rules)
        return tuple(kernel_of(nodes, node) for node in nodes.nodes)
    graph = FusionGraph.of(table)
    nodes = Emission(graph).nodes(group_operators(graph, activations="activation" in rules))
    _optimize(nodes, rules)
    return tuple(kernel_of(nodes, node) for node in nodes.nodes)


def _optimize(nodes: NodeGraph, rules: Collection[str]) -> None:
    """What the runtime does to the graph, in its order."""
    move_transposes(nodes)
    split_instead_of_gathering(nodes)
    fuse_transposed_operands(nodes)
    fuse_skip_norms(nodes)
    if "blocked" in rules:
        block_channels(nodes)
    expand_hardswish(nodes)
    if "channels_last" in rules:
        put_channels_last(nodes)
    if "residual" in rules:
        fuse_residuals(nodes)
    merge_splits(nodes)
