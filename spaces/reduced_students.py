"""Students that are the teacher with less of everything: narrower, shallower, with separable convolutions.

They begin with the teacher's own weights: those of the channels with the largest norms, of the blocks that stay, and of
the separable convolutions nearest to its full ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

from torch import nn

from kneepoint.spaces.network import Network, length
from kneepoint.spaces.policy import AxisValue, Policy
from kneepoint.spaces.ranking import best_channels, rank_channels
from kneepoint.spaces.separable import separable_layers, separate, separated_size
from kneepoint.spaces.student_prior import preferred
from kneepoint.spaces.students import AUTO, StudentFamily
from kneepoint.spaces.surgery import cut, trainable
from kneepoint.tasks.errors import SpaceError

WIDTHS = (1.0, 0.75, 0.5, 0.375, 0.25)
DEPTHS = (1.0, 0.5)
MEMBERS = 8
"""How many members a derived family has."""
_PLAIN = (0.5, 0.25)
"""Widths of the plain students that every search is compared with."""


def reduced_family(teacher: Network, members: int = MEMBERS) -> StudentFamily:
    """A family with the axes ``width``, ``depth`` and ``separable``, as far as the teacher has what they take away.

    ``width`` is the share of its channels that every group keeps, ``depth`` the share of its repeated blocks that stay,
    ``separable`` whether full convolutions become depthwise-separable ones (1) or stay (0).

    Raises:
        SpaceError: If the teacher has no channel group that may vary, no residual block and no full convolution.
    """
    axes = _axes(teacher)
    product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    smaller = [member for member in product if not _is_whole(member)]
    if not smaller:
        raise SpaceError(
            "students='auto' takes channels, residual blocks or full convolutions away, and the teacher has none that "
            "may go; give a kneepoint.StudentFamily, or students=None"
        )
    plain = [member for member in smaller if member.get("width") in _PLAIN and _is_whole({**member, "width": 1.0})]
    others = [member for member in smaller if member not in plain]
    whole = parameters(teacher, {})
    shares = [parameters(teacher, member) / whole for member in others]
    chosen = [others[place] for place in preferred(shares, others, max(1, members - len(plain)))]

    def build(**member: AxisValue) -> nn.Module:
        return reduced(teacher, member)

    kept = [member for member in smaller if member in plain or member in chosen]
    return StudentFamily(build, axes, AUTO, kept)


def reduced(teacher: Network, member: dict[str, AxisValue]) -> nn.Module:
    """The teacher made smaller, as a module of its own."""
    network = teacher.without(dropped_blocks(teacher, float(member.get("depth", 1.0))))
    counts = _channels(network, member)
    module = cut(network, best_channels(rank_channels(network, network.tensors()), counts))
    return trainable(separate(module) if member.get("separable") else module)


def dropped_blocks(teacher: Network, depth: float) -> list[str]:
    """The residual blocks that go where a share ``depth`` of them stays.

    Blocks of one layer (attention and feed-forward) go together, evenly spread from the first to the last, as in
    DistilBERT (Sanh et al., 2019, section 3).
    """
    layers: dict[str, list[str]] = {}
    for name in teacher.blocks:
        layers.setdefault(_repeated(name, teacher.blocks), []).append(name)
    count = max(1, math.ceil(len(layers) * depth))
    kept = {round(place * (len(layers) - 1) / max(1, count - 1)) for place in range(count)}
    return [name for place, names in enumerate(layers.values()) if place not in kept for name in names]


def parameters(teacher: Network, member: dict[str, AxisValue]) -> int:
    """Elements of all parameters of a member, counted without building it."""
    network = teacher.without(dropped_blocks(teacher, float(member.get("depth", 1.0))))
    counts = _channels(network, member)
    layouts = network.flow.parameters
    shapes = {
        name: tuple(
            length(layout, counts) if layout else size for layout, size in zip(layouts[name], shape, strict=True)
        )
        for name, shape in network.parameter_shapes.items()
        if name in layouts
    }
    full = separable_layers(network.graph_module.graph, shapes) if member.get("separable") else []
    trained = {name for name, _ in network.graph_module.named_parameters()}
    sizes = {name: separated_size(shape) if name in full else math.prod(shape) for name, shape in shapes.items()}
    return sum(size for name, size in sizes.items() if name in trained)


def _axes(teacher: Network) -> dict[str, Sequence[AxisValue]]:
    axes: dict[str, Sequence[AxisValue]] = {}
    if teacher.groups:
        axes["width"] = WIDTHS
    if any(dropped_blocks(teacher, depth) for depth in DEPTHS):
        axes["depth"] = DEPTHS
    if separable_layers(teacher.graph_module.graph, teacher.parameter_shapes):
        axes["separable"] = (0, 1)
    return axes


def _is_whole(member: dict[str, AxisValue]) -> bool:
    """Whether a member is the teacher itself."""
    return all(value == (0 if axis == "separable" else 1.0) for axis, value in member.items())


def _channels(network: Network, member: dict[str, AxisValue]) -> dict[str, int]:
    return network.channels(Policy.build(keep=dict.fromkeys(network.groups, float(member.get("width", 1.0)))))


def _repeated(block: str, blocks: Collection[str]) -> str:
    """The layer that a block belongs to: its path up to the last number that has others beside it."""
    parts = block.split(".")
    for place in range(len(parts) - 1, -1, -1):
        if parts[place].isdigit():
            beside = {tuple(other.split(".")[: place + 1]) for other in blocks if _begins(other, parts[:place])}
            if len(beside) > 1:
                return ".".join(parts[: place + 1])
    return block


def _begins(path: str, parts: Sequence[str]) -> bool:
    return path.split(".")[: len(parts)] == list(parts)
