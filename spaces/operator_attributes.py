"""The attributes of operators that a runtime's kernels depend on, read off the calls in the traced graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from kneepoint.hardware_models.operators import ONNX_KINDS
from kneepoint.spaces.axis_shapes import keeps_first_axis, permutation_of
from kneepoint.spaces.network import Network, Operation
from kneepoint.spaces.tracing import operator_name, shape_of, source_of

_POOLS = ("max_pool", "avg_pool")
_CONVOLUTIONS = ("conv", "depthwise_conv", "grouped_conv", "conv_transpose")
_SPATIAL = 2
"""The first axis of an image that is neither samples nor channels."""


@dataclass(frozen=True)
class Attributes:
    """What the table's operator has beside its kind, whatever the policy.

    Attributes:
        stride: Of convolutions and pools, along the first spatial axis; 0 where there is none.
        axes: See ``kneepoint.hardware_models.operators.Operator``.
        function: In the place of the operation's own, if not None.
        kernel: Likewise.
    """

    stride: int = 0
    axes: tuple[int, ...] = ()
    function: str | None = None
    kernel: tuple[int, ...] | None = None


_KNOWN: WeakKeyDictionary[Network, Mapping[str, Attributes]] = WeakKeyDictionary()


def operator_attributes(network: Network) -> Mapping[str, Attributes]:
    """The attributes of every operation, by name."""
    if network not in _KNOWN:
        _KNOWN[network] = {operation.name: _attributes(network, operation) for operation in network.operations}
    return _KNOWN[network]


def _attributes(network: Network, operation: Operation) -> Attributes:
    rule = _RULES.get(ONNX_KINDS.get(operation.function, operation.kind))
    return rule(network, operation) if rule is not None else Attributes()


def _convolution(network: Network, operation: Operation) -> Attributes:
    return Attributes(stride=_first(network.argument(operation, 3, "stride", 1)))


def _pool(network: Network, operation: Operation) -> Attributes:
    node = network.node(operation)
    if operator_name(node).startswith("adaptive"):  # exported as the pool whose windows tile the image
        sizes = zip(shape_of(source_of(node))[_SPATIAL:], operation.shape[_SPATIAL:], strict=True)
        kernel = tuple(before // after for before, after in sizes)
        return Attributes(stride=kernel[0], kernel=kernel)
    stride = network.argument(operation, 2, "stride", None) or operation.kernel
    ceil = operation.kind == "avg_pool" and network.argument(operation, 4, "ceil_mode", False)
    counts = network.argument(operation, 5, "count_include_pad", True)
    return Attributes(stride=_first(stride), function="ceil" if ceil and counts else None)


def _resize(network: Network, operation: Operation) -> Attributes:
    """``nearest`` and ``linear`` are by whole factors, as given; ``interpolate`` is any other linear one."""
    node = network.node(operation)
    sizes = zip(shape_of(source_of(node))[_SPATIAL:], operation.shape[_SPATIAL:], strict=True)
    whole = network.argument(operation, 1, "output_size", None) is None and not any(b % a for a, b in sizes)
    if "linear" in operator_name(node):
        corners = network.argument(operation, 2, "align_corners", False)
        return Attributes(function="linear" if whole and corners else "interpolate")
    return Attributes(function="nearest" if whole else "")


def _view(network: Network, operation: Operation) -> Attributes:
    """Those of one axis at a time are operators of their own; all others are Reshape, which may keep the batch."""
    node = network.node(operation)
    name = operator_name(node)
    single = name in ("squeeze", "unsqueeze")
    return Attributes(axes=(0,) if single or keeps_first_axis(node) else (), function=name if single else "")


def _transpose(network: Network, operation: Operation) -> Attributes:
    return Attributes(axes=tuple(permutation_of(network.node(operation))))


def _along_axis(network: Network, operation: Operation) -> Attributes:
    axis = network.argument(operation, 1, "dim", 0 if operation.kind == "concat" else -1)
    return Attributes(axes=(axis % len(operation.shape),))


def _layer_norm(network: Network, operation: Operation) -> Attributes:
    rank = len(operation.shape)
    return Attributes(axes=tuple(range(rank - len(network.argument(operation, 1, "normalized_shape", ())), rank)))


def _global_pool(network: Network, operation: Operation) -> Attributes:
    return Attributes(axes=tuple(range(_SPATIAL, _rank_before(network, operation))))


def _reduction(network: Network, operation: Operation) -> Attributes:
    rank = _rank_before(network, operation)
    given = network.argument(operation, 1, "dim", None)
    dims = range(rank) if given in (None, []) else [given] if isinstance(given, int) else given
    return Attributes(axes=tuple(sorted(axis % rank for axis in dims)))


def _copy(network: Network, operation: Operation) -> Attributes:
    """The axes that are padded, if it is with zeros: the last where there is nothing to pad."""
    if operation.function != "Pad":
        return Attributes()
    amounts = network.argument(operation, 1, "pad", ())
    mode, value = network.argument(operation, 2, "mode", "constant"), network.argument(operation, 3, "value", None)
    if mode != "constant" or value or any(not isinstance(amount, int) or amount < 0 for amount in amounts):
        return Attributes()
    rank = len(operation.shape)
    pairs = zip(amounts[::2], amounts[1::2], strict=True)
    padded = (rank - 1 - index for index, pair in enumerate(pairs) if any(pair))
    return Attributes(axes=tuple(sorted(padded)) or (rank - 1,))


def _rank_before(network: Network, operation: Operation) -> int:
    return len(shape_of(source_of(network.node(operation))))


def _first(sizes: int | Sequence[int]) -> int:
    return sizes if isinstance(sizes, int) else sizes[0]


_Rule = Callable[[Network, Operation], Attributes]
_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(("softmax", "concat"), _along_axis),
    "transpose": _transpose,
    "view": _view,
    "resize": _resize,
    "layer_norm": _layer_norm,
    "global_avg_pool": _global_pool,
    "reduce": _reduction,
    "copy": _copy,
}
