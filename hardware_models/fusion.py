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
- at the highest level on x86 the addition of a residual, with its activation, fuses into a float convolution.

Not modelled: the layout reorders and transposes that the runtime puts around groups of convolutions.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from kneepoint.hardware_models.emission import Emission
from kneepoint.hardware_models.fusion_graph import FusionGraph
from kneepoint.hardware_models.grouping import group_operators
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.operators import OperatorTable

FusionRule = Literal["activation", "residual"]
FUSION_RULES: tuple[FusionRule, ...] = get_args(FusionRule)


def fuse(table: OperatorTable, rules: Collection[str] = ("activation",)) -> tuple[Kernel, ...]:
    """The kernels of ``table``, in execution order.

    The outcome depends on structure, shapes and formats alone, never on names.

    Args:
        table: What the network computes.
        rules: Which of ``FUSION_RULES`` the runtime applies on the device: ``activation`` on every CPU, ``residual``
            where it has blocked convolutions (x86).

    Raises:
        ValueError: If a rule is not one of ``FUSION_RULES``.
    """
    if unknown := set(rules) - set(FUSION_RULES):
        raise ValueError(f"fusion rules are {FUSION_RULES}; got {sorted(unknown)}")
    graph = FusionGraph.of(table)
    groups = group_operators(graph, activations="activation" in rules, residuals="residual" in rules)
    return tuple(Emission(graph).kernels(groups))
