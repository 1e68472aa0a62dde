"""What is believed of rates before any latency is seen: how fast classes of kernels run, relative to pointwise ones.

A world of systems has beliefs of its own: an accelerator multiplies so fast that launches and memory cost the work of
millions. They are wide, and only decide where no published network says anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES, WORK, KernelClass
from kneepoint.hardware_models.published.systems import World

Floats = NDArray[np.float64]
_OF_PRODUCTS: tuple[KernelClass, ...] = ("pointwise", "convolution", "winograd", "stem", "grouped", "matmul")
_NEXT_TO_NOTHING = 1e-6
_Parts = tuple[float, float, float]
"""Operations that an element read costs, one written, and one of a weight."""


@dataclass(frozen=True)
class Priors:
    """Means and widths, in logarithms.

    Attributes:
        cost: (classes + 2,) of an operation of each class relative to a pointwise one, of a launch, of an inference;
            these two in milliseconds where a faster system does not launch faster.
        cost_width: (classes + 2,) standard deviations.
        part: (classes, 3) of an element read, written, and of a weight, relative to an operation of the class.
        part_width: Standard deviation of all of them.
        runtime_width: By how much at most a family of runtimes differs from all.
        group_width: By how much at most one of its precisions differs from the family.
        system_width: (classes + 2,) by how much a system differs from its family.
        moving_width: By how much its cost of moving elements does, as a whole.
        noise: Of a published latency, for a network like those that were fitted to.
        hastens_launches: Whether a faster system launches kernels faster. The launches of a processor are its own
            instructions, those of an accelerator are its host's work.
    """

    cost: Floats
    cost_width: Floats
    part: Floats
    part_width: float
    runtime_width: float
    group_width: float
    system_width: Floats
    moving_width: float
    noise: float
    hastens_launches: bool


@dataclass(frozen=True)
class _Widths:
    """How sure a world is of what it believes; standard deviations of logarithms.

    Attributes:
        classes: Of classes that differ from ``_WIDTHS`` and ``_MOVED_WIDTH``.
        part: Of what an element read or written, or a weight, costs.
        runtime: By how much at most a family of runtimes differs from all.
        group: By how much at most one of its precisions differs from the family.
        system: By how much at most a system differs from its family.
        moving: By how much its cost of moving elements does, as a whole.
        noise: Of a published latency.
        hastens_launches: See ``Priors``.
    """

    classes: Mapping[KernelClass, float]
    part: float
    runtime: float
    group: float
    system: float
    moving: float
    noise: float
    hastens_launches: bool = True


_WIDTHS: Mapping[KernelClass, float] = {
    "pointwise": 0.05, "convolution": 0.3, "winograd": 0.4, "stem": 0.5, "grouped": 0.4, "matmul": 1.5, "vector": 0.4,
}  # fmt: skip
"""Pointwise kernels are what the others are compared with; their width would only move the speed of all. Products
of two activations are one kernel in some runtimes and a plain loop in others, which transformers alone can tell."""
SCALAR = 16.0
"""How much slower a kernel is that handles one byte at a time instead of a vector of 16."""
_MOVED_WIDTH = 0.65
"""Of classes that move elements: how well runtimes write those differs most."""
_SYSTEM_WIDTHS: Mapping[KernelClass, float] = {"pointwise": 0.1, "convolution": 0.2, "winograd": 0.2}
"""Products of matrices come from one kernel of a runtime, on all its systems."""


def _priors(
    costs: Mapping[KernelClass, float],
    launch: tuple[float, float],
    inference: tuple[float, float],
    products: _Parts,
    widths: _Widths,
    **others: _Parts,
) -> Priors:
    """``launch`` and ``inference`` are means and widths; ``others`` are parts of classes that differ from products."""
    known_parts = {"depthwise": (0.5, 0.5, 0.5), "vector": (1.0, 1.0, 0.5), **others}
    nothing = (_NEXT_TO_NOTHING,) * (len(WORK) - 1)
    parts = [known_parts.get(name, products if name in _OF_PRODUCTS else nothing) for name in KERNEL_CLASSES]
    known = {**_WIDTHS, **widths.classes}
    own = [min(_SYSTEM_WIDTHS.get(name, widths.system), widths.system) for name in KERNEL_CLASSES]
    return Priors(
        cost=np.log([*(costs[name] for name in KERNEL_CLASSES), launch[0], inference[0]]),
        cost_width=np.array([*(known.get(name, _MOVED_WIDTH) for name in KERNEL_CLASSES), launch[1], inference[1]]),
        part=np.log(np.array(parts)),
        part_width=widths.part,
        runtime_width=widths.runtime,
        group_width=widths.group,
        system_width=np.array([*own, launch[1] * 0.7, inference[1]]),
        moving_width=widths.moving,
        noise=widths.noise,
        hastens_launches=widths.hastens_launches,
    )


_CPU: Mapping[KernelClass, float] = {
    "pointwise": 1, "convolution": 1, "winograd": 0.8, "stem": 1, "depthwise": 5, "vector": 1.2, "grouped": 1.5,
    "pool": 15, "elementwise": 25, "copy": 60, "norm": 20, "matmul": 10,
}  # fmt: skip
"""Moving an element costs tens of operations of a product, whose operands stay in registers."""
_ACCELERATOR: Mapping[KernelClass, float] = {
    "pointwise": 1, "convolution": 0.8, "winograd": 0.8, "stem": 3, "depthwise": 20, "vector": 30, "grouped": 4,
    "pool": 30, "elementwise": 100, "copy": 100, "norm": 200, "matmul": 3,
}  # fmt: skip
_MICROCONTROLLER: Mapping[KernelClass, float] = {
    "pointwise": 1, "convolution": 0.9, "winograd": 0.8, "stem": 1.3, "depthwise": 4, "vector": 1, "grouped": 1.5,
    "pool": 2, "elementwise": 4, "copy": 2, "norm": 50, "matmul": 1.5,
}  # fmt: skip
"""No fast algorithms there, but the inner products of a window are longer than those of a pointwise kernel, whose
operands are loaded more often for it. A linear layer multiplies as fast, and loads every weight for one product: half
an operation more (``vector`` of the parts)."""
PRIORS: Mapping[World, Priors] = {
    "cpu": _priors(
        _CPU,
        (6e5, 1.5),
        (1e5, 0.2),
        (5, 8, 6),
        _Widths({}, 0.5, 0.3, 0.15, 0.5, 2.0, 0.08),
        stem=(60, 12, 4),
        depthwise=(2.5, 0.5, 0.5),
    ),
    "accelerator": _priors(
        _ACCELERATOR,
        (0.005, 1.0),
        (0.05, 1.5),
        (64, 128, 16),
        _Widths({"pointwise": 1.0}, 0.5, 0.3, 0.2, 0.4, 0.5, 0.08, hastens_launches=False),
    ),
    "microcontroller": _priors(
        _MICROCONTROLLER, (3e3, 0.4), (3e3, 0.2), (1, 4, 0.1), _Widths({"vector": 0.2}, 0.25, 0.3, 0.3, 0.3, 0.5, 0.08)
    ),
}
"""By world of systems; means of processors were rounded from a first fit, so that what is predicted with them is judged
a little too well.

A kernel of an accelerator starts about 5 us after the one before it, and a product of matrices takes what its peak
says, times e at most. Precisions of one runtime differ little on processors, where the gain of integers is nearly the
same for every network, and more on accelerators, which have units for them. Cores of a processor share its memory, so
that moving elements is the dearer the more of them multiply. A stem reads images with few channels, whose windows are
copied before they are multiplied. Most published networks of microcontrollers have next to no linear layers, and the
few others have them in external flash: what is believed of those has to be narrow.
"""
