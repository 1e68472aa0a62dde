"""Sums of small regression trees as arrays: evaluated with NumPy alone, many rows at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RegressionTrees:
    """Complete binary trees of one depth, whose values add up.

    They are those of gradient boosting (J. Friedman, "Greedy function approximation: a gradient boosting machine",
    Annals of Statistics 29(5), 2001). The children of node i are nodes 2 i + 1 (where the feature is at most the
    threshold) and 2 i + 2.

    Attributes:
        feature: (trees, nodes) uint8, the column that a node looks at.
        threshold: (trees, nodes) float32.
        value: (trees, leaves) float16 or float32; leaves are one more than nodes.
    """

    feature: NDArray[np.uint8]
    threshold: NDArray[np.float32]
    value: NDArray[np.floating]

    def __post_init__(self) -> None:
        """Check that the arrays belong together.

        Raises:
            ValueError: If they do not.
        """
        trees, nodes = self.feature.shape
        if self.threshold.shape != (trees, nodes) or self.value.shape != (trees, nodes + 1) or nodes & (nodes + 1):
            shapes = self.feature.shape, self.threshold.shape, self.value.shape
            raise ValueError(f"complete trees have (t, n), (t, n) and (t, n + 1) entries, n = 2^d - 1; got {shapes}")

    @property
    def depth(self) -> int:
        """Decisions on the way to a leaf."""
        return int(self.value.shape[1]).bit_length() - 1

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The sum over the trees.

        Args:
            rows: (rows, features).

        Returns:
            (rows,) float64.
        """
        trees = np.arange(len(self.feature))[:, None]
        node = np.zeros((len(self.feature), len(rows)), np.int64)
        across = np.arange(len(rows))[None, :]
        for _ in range(self.depth):
            right = rows[across, self.feature[trees, node]] > self.threshold[trees, node]
            node = 2 * node + 1 + right
        total: NDArray[np.float64] = self.value[trees, node - self.feature.shape[1]].sum(axis=0, dtype=np.float64)
        return total

    def arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, as :meth:`of` takes them."""
        return {f"{prefix}.{name}": getattr(self, name) for name in ("feature", "threshold", "value")}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> RegressionTrees | None:
        """The trees whose arrays are called ``prefix``; None where there are none."""
        if f"{prefix}.feature" not in arrays:
            return None
        feature, threshold, value = (arrays[f"{prefix}.{name}"] for name in ("feature", "threshold", "value"))
        return cls(feature.astype(np.uint8), threshold.astype(np.float32), value.astype(np.float32))
