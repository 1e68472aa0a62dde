"""A compressed network as ONNX: integer weights, QuantizeLinear and DequantizeLinear, a free batch dimension."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.deployment.export_graph import export_graph
from kneepoint.deployment.packing import pack_weights
from kneepoint.deployment.quantized_operators import TRANSLATIONS
from kneepoint.deployment.tidying import tidy
from kneepoint.spaces.tracing import Inputs, split_inputs
from kneepoint.tasks.errors import JobFailed

OPSET = 21
_TREE_MAP: Callable[..., Any] = torch.utils._pytree.tree_map


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
    module, weights = export_graph(compressed)
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
                custom_translation_table=dict(TRANSLATIONS),
                verbose=False,
            )
    except Exception as error:  # the exporter raises many unrelated types
        raise JobFailed(f"torch.onnx could not export the network: {_innermost(error)}") from error
    assert program is not None  # noqa: S101 - what export returns under dynamo=True
    model = program.model_proto
    pack_weights(model, weights)
    tidy(model)
    onnx.helper.set_model_props(model, {"kneepoint.policy": compressed.policy.id})
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
