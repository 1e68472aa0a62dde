"""Distinct kernels, priced once: a workload is a gather over them, many workloads a gather and a segmented sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.liveness import Buffers
from kneepoint.hardware_models.workload import Integers, Workload

Floats = NDArray[np.float64]
Decided = Literal["arithmetic", "bandwidth", "measurements", "publications", "nothing"]
DECIDED: tuple[Decided, ...] = ("arithmetic", "bandwidth", "measurements", "publications", "nothing")
"""What gave a kernel its price; where it is nothing, the price is an upper bound."""
_SUMS = 6


@dataclass(frozen=True)
class RowPrices:
    """Arrays of one entry a kernel.

    Attributes:
        latency_ms: Milliseconds, or an upper bound of them.
        error_ms: One standard error that a kernel shares with no other.
        decided: int8, positions in ``DECIDED``.
        shared_ms: One standard error that all priced kernels of a network share: theirs add up.
        energy_mj: Millijoules; 0 where the device's power is unknown.
        weight_bytes: Of its weight, as it is read.
    """

    latency_ms: Floats
    error_ms: Floats
    decided: NDArray[np.int8]
    shared_ms: Floats
    energy_mj: Floats
    weight_bytes: Floats

    @classmethod
    def none(cls) -> RowPrices:
        """Of no kernels."""
        empty = np.zeros(0)
        return cls(empty, empty, np.zeros(0, np.int8), empty, empty, empty)

    def at(self, places: Integers) -> RowPrices:
        """Those of some kernels."""
        return RowPrices(*(getattr(self, entry.name)[places] for entry in fields(self)))

    def followed_by(self, others: RowPrices) -> RowPrices:
        """These, and then ``others``."""
        names = [entry.name for entry in fields(self)]
        return RowPrices(*(np.concatenate((getattr(self, name), getattr(others, name))) for name in names))

    @property
    def sums(self) -> Floats:
        """(kernels, 6): what adds up over a network, in the order of ``Totals``."""
        bounded = np.where(self.priced, 0.0, self.latency_ms)
        columns = (self.latency_ms, bounded, self.error_ms**2, self.shared_ms, self.energy_mj, self.weight_bytes)
        return np.stack(columns, axis=1)

    @property
    def priced(self) -> NDArray[np.bool_]:
        """Whether the latency is more than a bound."""
        return np.asarray(self.decided != DECIDED.index("nothing"))


@dataclass(frozen=True)
class Totals:
    """Arrays of one entry a workload.

    Attributes:
        latency_ms: Sum over its kernels.
        bounded_ms: The part of it that is only bounded.
        error_ms: Root of the sum of squares of its kernels' own errors.
        shared_ms: Sum of the errors that its kernels share.
        energy_mj: Sum over its kernels.
        weight_bytes: Sum over its kernels.
    """

    latency_ms: Floats
    bounded_ms: Floats
    error_ms: Floats
    shared_ms: Floats
    energy_mj: Floats
    weight_bytes: Floats


class PriceTable:
    """Prices by everything that a kernel is priced on; names do not matter.

    Args:
        price: The prices of the kernels of a workload.
        surroundings: Whether prices depend on where a kernel stands.
    """

    def __init__(self, price: Callable[[Workload], RowPrices], *, surroundings: bool = False) -> None:
        self._price = price
        self._surroundings = surroundings
        self._known: dict[bytes, int] = {}
        self._words: dict[str, int] = {}
        self._places: WeakKeyDictionary[Workload, Integers] = WeakKeyDictionary()
        self._prices = RowPrices.none()
        self._sums = np.zeros((0, _SUMS))

    def __len__(self) -> int:
        return len(self._known)

    def places(self, workload: Workload) -> Integers:
        """(kernels,) int64: where in the table the kernels of ``workload`` stand; new ones are priced and added."""
        if workload not in self._places:
            keys = self._keys(workload)
            new = {key: row for row, key in enumerate(keys) if key not in self._known}
            if new:
                self._add(new, workload)
            self._places[workload] = np.array([self._known[key] for key in keys], np.int64)
        return self._places[workload]

    def prices(self, places: Integers) -> RowPrices:
        """The prices at ``places``."""
        return self._prices.at(places)

    def totals(self, places: Integers, lengths: Integers) -> Totals:
        """The sums over consecutive runs of kernels.

        Args:
            places: (kernels of all workloads,) int64, from :meth:`places`.
            lengths: (workloads,) int64, how many of them belong to each.
        """
        sums = np.zeros((len(lengths), _SUMS))
        held = lengths > 0  # reduceat gives an empty run the value that follows it
        if held.any():
            starts = (np.cumsum(lengths) - lengths)[held]
            sums[held] = np.add.reduceat(np.take(self._sums, places, axis=0), starts, axis=0)
        return Totals(sums[:, 0], sums[:, 1], np.sqrt(sums[:, 2]), *sums[:, 3:].T)

    def _add(self, new: dict[bytes, int], workload: Workload) -> None:
        added = self._price(rows_of(workload, list(new.values())))
        self._prices = self._prices.followed_by(added)
        self._sums = np.concatenate((self._sums, added.sums))
        for key in new:
            self._known[key] = len(self._known)

    def _keys(self, workload: Workload) -> list[bytes]:
        """All that a kernel is priced on, as bytes."""
        around = workload.surroundings if self._surroundings else workload.surroundings[:, :0]
        patterns = [workload.sparse.get(row, "") for row in range(len(workload))]
        columns = np.column_stack(
            (
                workload.kind, workload.format, workload.layout, workload.macs, workload.input_bytes,
                workload.weight_bytes, workload.output_bytes, workload.elements, workload.geometry, around,
                self._codes(workload.functions), self._codes(patterns),
            )
        ).astype(np.int64)  # fmt: skip
        return [row.tobytes() for row in columns]

    def _codes(self, words: Sequence[str]) -> Integers:
        return np.array([self._words.setdefault(word, len(self._words)) for word in words], np.int64)


def rows_of(workload: Workload, rows: Sequence[int]) -> Workload:
    """Some kernels of ``workload``, each where it stands: the network's own sizes are 0."""
    at = np.array(rows, np.int64)
    arrays = (
        "kind", "format", "layout", "macs", "input_bytes", "weight_bytes", "output_bytes", "elements", "geometry",
        "surroundings",
    )  # fmt: skip
    return replace(
        workload,
        names=tuple(workload.names[row] for row in rows),
        functions=tuple(workload.functions[row] for row in rows),
        sparse={place: workload.sparse[row] for place, row in enumerate(rows) if row in workload.sparse},
        **{name: getattr(workload, name)[at] for name in arrays},
        storage_bytes=0,
        resident_bytes=0,
        parameters=0,
        peak_activation_bytes=0,
        buffers=Buffers.none(),
    )
