"""A latency model that was fitted to measurements: a roofline, times what trees have learned of its errors.

For every variant of a kernel (``features.variants``) the latency in microseconds is::

    max(lowest, (coefficients . terms) * exp(trees(features)) + shift)

A refined roofline times a learned utilisation beats either alone (M. Wess et al., "ANNETTE: accurate neural network
execution time estimation with stacked models", IEEE Access 9, 2021). Everything is arrays: loading a device needs
neither the library that fitted them nor torch.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.features import TERMS, features, terms, variants
from kneepoint.hardware_models.regression_trees import RegressionTrees
from kneepoint.hardware_models.workload import Workload

FORMAT = "kneepoint.latency/2"
_REACH = 2.0
"""Logarithm of the largest factor that trees may be off the roofline by."""


@dataclass(frozen=True, eq=False)
class VariantModel:
    """The fit of one variant.

    Attributes:
        coefficients: (terms,) float64, microseconds a unit of ``features.TERMS``; none is negative.
        lowest_us: No kernel of the variant takes less.
        shift_us: What whole networks showed to be missing (or too much) at every launch.
        samples: Kernels that it was fitted to.
        trees: The learned part; None where samples were too few.
    """

    coefficients: NDArray[np.float64]
    lowest_us: float
    shift_us: float = 0.0
    samples: int = 0
    trees: RegressionTrees | None = None

    def predict(self, term: NDArray[np.float64], feature: NDArray[np.float32]) -> NDArray[np.float64]:
        """Microseconds of kernels.

        Args:
            term: (kernels, terms), of ``features.terms``.
            feature: (kernels, features), of ``features.features``.
        """
        latency = term @ self.coefficients
        if self.trees is not None:
            latency = latency * np.exp(np.clip(self.trees.predict(feature), -_REACH, _REACH))
        return np.maximum(latency + self.shift_us, self.lowest_us)


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """The fits of all variants that were measured, at one thread count.

    Attributes:
        variants: By name.
        network_floor_us: Microseconds of an inference apart from its kernels.
        kernel_error: One standard error of a single kernel, as a fraction, independent of all others.
        common_error: One standard error that all kernels of a network share, as a fraction.
    """

    variants: Mapping[str, VariantModel]
    network_floor_us: float
    kernel_error: float
    common_error: float
    _unknown: set[str] = field(default_factory=set, repr=False)

    def predict(self, workload: Workload) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Microseconds of every kernel, and whether its variant was measured; both (kernels,)."""
        names = np.array(variants(workload), dtype=object)
        term, feature = terms(workload), features(workload)
        latency, priced = np.zeros(len(names)), np.zeros(len(names), bool)
        for name in set(names):
            model = self.variants.get(name)
            if model is None:
                self._unknown.add(name)
                continue
            rows = np.flatnonzero(names == name)
            latency[rows], priced[rows] = model.predict(term[rows], feature[rows]), True
        return latency, priced

    @property
    def unknown(self) -> tuple[str, ...]:
        """Variants that it was asked for and does not know."""
        return tuple(sorted(self._unknown))

    # --- as text ---------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain values, the arrays as compressed text (base64 of zlib)."""
        names = sorted(self.variants)
        arrays: dict[str, NDArray[np.generic]] = {
            "coefficients": np.array([self.variants[name].coefficients for name in names]),
            "scalars": np.array([[getattr(self.variants[name], key) for key in _SCALARS] for name in names]),
        }
        for place, name in enumerate(names):
            trees = self.variants[name].trees
            arrays.update(trees.arrays(str(place)) if trees is not None else {})
        return {
            "format": FORMAT,
            "terms": list(TERMS),
            "variants": names,
            "network_floor_us": self.network_floor_us,
            "kernel_error": self.kernel_error,
            "common_error": self.common_error,
            "arrays": _packed(arrays),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LatencyModel:
        """What :meth:`to_json` gave.

        Raises:
            ValueError: If it is of another format or version.
            KeyError: If something is missing.
        """
        if content["format"] != FORMAT or content["terms"] != list(TERMS):
            raise ValueError(f"a latency model is of the format {FORMAT}; got {content['format']!r}")
        arrays = _unpacked(content["arrays"])
        models = {name: _variant_of(arrays, place) for place, name in enumerate(content["variants"])}
        floor, kernel, common = (float(content[name]) for name in ("network_floor_us", "kernel_error", "common_error"))
        return cls(models, floor, kernel, common)


_SCALARS = ("lowest_us", "shift_us", "samples")


def _variant_of(arrays: Mapping[str, NDArray[np.generic]], place: int) -> VariantModel:
    lowest, shift, samples = arrays["scalars"][place].astype(np.float64).tolist()
    coefficients = arrays["coefficients"][place].astype(np.float64)
    return VariantModel(coefficients, lowest, shift, int(samples), RegressionTrees.of(arrays, str(place)))


def _packed(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """All arrays in one compressed block: one header each would take more room than the trees."""
    header = [(name, array.dtype.str, list(array.shape)) for name, array in arrays.items()]
    start = json.dumps(header).encode()
    body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    return base64.b64encode(zlib.compress(len(start).to_bytes(4, "little") + start + body, 9)).decode("ascii")


def _unpacked(text: str) -> dict[str, NDArray[np.generic]]:
    """What :func:`_packed` packed.

    Raises:
        ValueError: If the text was cut or changed.
    """
    try:
        block = io.BytesIO(zlib.decompress(base64.b64decode(text, validate=True)))
    except zlib.error as error:
        raise ValueError(f"its arrays are damaged: {error}") from error
    header = json.loads(block.read(int.from_bytes(block.read(4), "little")))
    arrays = {}
    for name, dtype, shape in header:
        kind = np.dtype(dtype)
        arrays[name] = np.frombuffer(block.read(kind.itemsize * int(np.prod(shape))), kind).reshape(shape)
    return arrays
