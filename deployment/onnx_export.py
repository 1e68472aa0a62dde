"""A compressed network as ONNX: integer weights, QuantizeLinear and DequantizeLinear, a free batch dimension."""

from __future__ import annotations

import onnx

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.deployment.template import template_of
from kneepoint.deployment.tidying import tidy
from kneepoint.deployment.writing import write
from kneepoint.spaces.tracing import Inputs


def to_onnx(compressed: CompressedNetwork, example_input: Inputs) -> onnx.ModelProto:
    """The artifact of ``compressed``.

    8-bit weights take a byte, 4-bit half a byte, 2-bit a quarter (INT4 and INT2 initializers behind a Cast to INT8,
    which ONNX Runtime folds when it loads), 16-bit two bytes (float16 behind a Cast). The inputs carry the names
    that the network's ``forward`` gives them, in the order of ``example_input``; the outputs come in the order of the
    network's own structure.

    Args:
        compressed: With every scale.
        example_input: For shapes and types; the batch dimension of the artifact is free.

    Raises:
        JobFailed: If torch.onnx cannot write an operator of the network.
    """
    model = write(template_of(compressed, example_input), compressed)
    tidy(model)
    onnx.helper.set_model_props(model, {"kneepoint.policy": compressed.policy.id})
    return model
