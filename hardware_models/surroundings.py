"""Where kernels stand: a kernel is only as fast as what ran before it left caches and threads.

The same kernel was measured up to ten times slower behind a large convolution than among its equals: its code, its
weights and its input had left the caches; and on two threads its input may lie in the caches of the other core.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.kernels import KERNEL_KINDS, LAYOUTS, Kernel

Integers = NDArray[np.int64]
SURROUNDINGS = ("before", "nearest", "farthest", "steps", "weights", "producer", "producer_macs", "previous")
"""What a row says of a kernel's surroundings; sizes are powers of two, so that rows are rarely distinct for them alone:

- before: bits of the number of bytes that the kernel before it moved;
- nearest, farthest: the same of those that were moved since its input was written, and since its oldest input was;
- steps: bits of the number of kernels since its nearest input;
- weights: bits of the number of bytes of all the network's weights;
- producer, previous: a code of what wrote its nearest input, and of what ran before it; 0 for nothing;
- producer_macs: bits of the number of operations of its producer.
"""
_CODES = {place: 1 + code for code, place in enumerate(itertools.product(KERNEL_KINDS, LAYOUTS))}
_GIVEN = -1
"""The producer of an input of the network."""


def surroundings(kernels: Sequence[Kernel]) -> Integers:
    """(kernels, surroundings) int64, of kernels in execution order."""
    if not kernels:
        return np.zeros((0, len(SURROUNDINGS)), np.int64)
    moved = [0]
    for kernel in kernels:
        moved.append(moved[-1] + kernel.input_bytes + kernel.weight_bytes + kernel.output_bytes)
    weights = sum(kernel.weight_bytes for kernel in kernels).bit_length()
    writers: dict[str, int] = {}
    rows = []
    for place, kernel in enumerate(kernels):
        producers = [writers.get(name, _GIVEN) for name in kernel.reads] or [_GIVEN]
        latest, oldest = max(producers), min(producers)
        producer = kernels[latest] if latest >= 0 else None
        previous = kernels[place - 1] if place else None
        before = moved[place] - moved[place - 1] if place else 0
        sizes = (before, moved[place] - moved[latest + 1], moved[place] - moved[oldest + 1], place - 1 - latest)
        macs = producer.macs.bit_length() if producer else 0
        rows.append((*(size.bit_length() for size in sizes), weights, _code(producer), macs, _code(previous)))
        writers[kernel.writes] = place
    return np.array(rows, np.int64)


def _code(kernel: Kernel | None) -> int:
    return _CODES[kernel.kind, kernel.layout] if kernel else 0
