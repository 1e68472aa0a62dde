"""Whether the first samples of a split can stand for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

BLOCKS = 10
"""Parts of a split, in its order, that are compared."""
SUSPICIOUS = 1e-4
"""A difference between the parts that chance makes so rarely is taken for an order of the samples."""
_FEWEST = 5
"""Samples a part, and expected samples of a class in one."""


def is_mixed(values: Tensor, targets: Any) -> bool:
    """Whether samples stand in no particular order, as far as their targets and scores show.

    Folders of images are often read class by class: then the first samples say little of the others. The parts of a
    split are compared by the classes in them (chi-squared test of independence) and by the scores of their samples
    (Kruskal & Wallis 1952).

    Args:
        values: Shape (samples,), a network's score of each.
        targets: Of the samples; looked at where they are class indices of shape (samples,).
    """
    scores = values.double().numpy()
    if len(scores) < BLOCKS * _FEWEST:
        return False
    return _alike(np.array_split(scores, BLOCKS)) and _same_classes(targets)


def _alike(parts: list[npt.NDArray[np.float64]]) -> bool:
    if len(np.unique(np.concatenate(parts))) == 1:
        return True
    from scipy.stats import kruskal  # takes half a second to import

    return bool(kruskal(*parts).pvalue > SUSPICIOUS)


def _same_classes(targets: Any) -> bool:
    if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.is_floating_point():
        return True
    from scipy.stats import chi2_contingency

    classes, labels = np.unique(targets.numpy(), return_inverse=True)
    common = [label for label in range(len(classes)) if (labels == label).sum() >= BLOCKS * _FEWEST]
    if len(common) < 2:
        return _spread(labels)
    table = np.array([[(part == label).sum() for label in common] for part in np.array_split(labels, BLOCKS)])
    return bool((table.sum(axis=1) > 0).all() and chi2_contingency(table).pvalue > SUSPICIOUS)


def _spread(labels: npt.NDArray[np.int64]) -> bool:
    """Whether class indices too many to count are as high at the start as at the end."""
    return _alike([part.astype(np.float64) for part in np.array_split(labels, BLOCKS)])
