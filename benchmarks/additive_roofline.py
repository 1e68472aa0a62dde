"""The baseline to beat: an additive roofline with seven constants, fitted to one system alone.

    milliseconds = a + b kernels + c MACs of dense kernels + d MACs of depthwise ones + e MACs of vectors
                   + f activations + g weights

All are at least 0, and fitted to relative errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES
from kneepoint.hardware_models.published.samples import Sample

Floats = NDArray[np.float64]
_DENSE = [KERNEL_CLASSES.index(name) for name in ("pointwise", "convolution", "winograd", "stem", "grouped", "matmul")]
_MOVED = [KERNEL_CLASSES.index(name) for name in ("elementwise", "copy", "norm")]
_DEPTHWISE, _VECTOR = KERNEL_CLASSES.index("depthwise"), KERNEL_CLASSES.index("vector")


def leave_families_out(entries: Sequence[Sample]) -> Iterator[tuple[Sample, float]]:
    """Every sample of one system, and what the other families' fit predicts for it, milliseconds."""
    for family in sorted({sample.family for sample in entries}):
        rest = [sample for sample in entries if sample.family != family]
        if rest:
            constants = _fit(rest)
            yield from ((sample, float(_terms(sample) @ constants)) for sample in entries if sample.family == family)


def _fit(entries: Sequence[Sample]) -> Floats:
    times = np.array([sample.latency_ms for sample in entries])
    matrix = np.array([_terms(sample) for sample in entries])
    scale = np.abs(matrix).max(axis=0)
    scale[scale == 0] = 1.0
    solved, _ = nnls(matrix / scale / times[:, None], np.ones(len(times)))
    return np.asarray(solved / scale)


def _terms(sample: Sample) -> Floats:
    work = sample.work
    moved, weights = work[:, 1:3].sum() + work[_MOVED, 0].sum(), work[:, 3].sum()
    dense = work[_DENSE, 0].sum()
    return np.array([1.0, sample.kernels, dense, work[_DEPTHWISE, 0], work[_VECTOR, 0], moved, weights])
