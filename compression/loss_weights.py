"""Weights of a loss's terms that follow how fast each of them falls: dynamic weight averaging.

Liu, Johns & Davison, "End-to-end multi-task learning with attention", CVPR 2019, equation 7: of K terms, term k weighs
K exp(w_k / T) / sum_i exp(w_i / T), where w_k is its mean loss over the last window over that of the window before. A
term that falls more slowly than the others gets more weight. There a window is an epoch, here a number of batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

TEMPERATURE = 2.0  # that of the paper
WINDOW = 20  # batches


class DynamicWeights(nn.Module):
    """The factor of every term, 1 until two windows are full. What it remembers are buffers, so that it can be stored.

    Args:
        names: Of the terms.
    """

    sums: Tensor
    counts: Tensor
    means: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("sums", torch.zeros(len(names)))
        self.register_buffer("counts", torch.zeros(len(names)))
        self.register_buffer("means", torch.full((2, len(names)), torch.nan))  # of the window before the last, the last

    def forward(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The factors of ``terms``, which are remembered; their mean is 1."""
        rows = [self.names.index(name) for name in terms]
        ratios = self.means[1, rows] / self.means[0, rows]
        known = torch.where(ratios.isfinite(), ratios, 1.0)
        factors = len(rows) * (known / TEMPERATURE).softmax(0)
        self._remember(rows, torch.stack([value.detach().float() for value in terms.values()]))
        return dict(zip(terms, factors, strict=True))

    def _remember(self, rows: list[int], values: Tensor) -> None:
        self.sums[rows] += values
        self.counts[rows] += 1
        full = self.counts >= WINDOW
        if bool(full.any()):
            self.means[0, full] = self.means[1, full]
            self.means[1, full] = self.sums[full] / self.counts[full]
            self.sums[full] = 0.0
            self.counts[full] = 0.0
