"""Policies of one network as rows of small integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import UNTOUCHED, LayerPolicy, Policy

Integers = NDArray[np.int64]
_INTEGER, _FLOAT = 8, 32
"""Bits that stand for all that kernels compute alike with."""
_NOWHERE = -1
"""The column of what has left the network with a residual block: one that is cut off."""
_REMEMBERED = 65536
"""Formats of layers, as objects, whose codes are kept ready."""
_Cell = tuple[int, int]
"""A column, and the code that belongs there."""


class PolicyCodes:
    """A column for every layer (a number for its format) and for every channel group (a number for its width).

    Args:
        network: The policies' own: they leave out no more residual blocks than it does.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.layers = {name: column for column, name in enumerate(network.layers)}
        self.groups = {name: len(self.layers) + column for column, name in enumerate(network.groups)}
        self._formats: list[LayerPolicy] = [UNTOUCHED]
        self._format_codes: dict[LayerPolicy, int] = {UNTOUCHED: 0}
        self._widths = {name: [size] for name, size in network.groups.items()}
        self._fractions = {name: [1.0] for name in network.groups}
        self._cells: dict[tuple[str, float], _Cell] = {}
        self._held: list[LayerPolicy] = []
        self._checked: set[tuple[str, LayerPolicy]] = set()

    def encode(self, policies: Sequence[Policy]) -> Integers:
        """(policies, columns) int64.

        Raises:
            SpaceError: If a policy names what the network does not have.
        """
        codes = np.zeros((len(policies), len(self.layers) + len(self.groups) + 1), np.int64)
        cells = self._cells
        for row, policy in zip(codes, policies, strict=True):
            found = [cells.get((name, id(layer))) or self._layer(name, layer) for name, layer in policy.layers]
            found += [cells.get(pair) or self._width(*pair) for pair in policy.keep]
            if found:
                columns, values = zip(*found, strict=True)
                row[list(columns)] = values
        return codes[:, :_NOWHERE]

    def decode(self, row: Integers) -> Policy:
        """The policy of one row; of fractions that keep equally many channels, the first that came."""
        layers = {name: self._formats[int(row[column])] for name, column in self.layers.items()}
        keep = {name: self._fractions[name][int(row[column])] for name, column in self.groups.items()}
        return Policy.build(keep=keep, layers=layers)

    @property
    def formats(self) -> int:
        """How many formats of layers have been seen."""
        return len(self._formats)

    def widths(self, group: str) -> int:
        """How many widths of a channel group have been seen."""
        return len(self._widths[group])

    def computed(self) -> Integers:
        """(formats,) int64: for every format, one that kernels compute alike with (those of embeddings apart)."""
        alike = [
            self._code(_computed(entry)) for entry in self._formats
        ]  # may find formats, which then stand for themselves
        return np.array(alike, np.int64)

    def _layer(self, name: str, layer: LayerPolicy) -> _Cell:
        """Remembered by the object, which is quicker than by its value, and keeps it from being another one."""
        if len(self._held) >= _REMEMBERED:
            self._held.clear()
            self._cells.clear()
        if (name, layer) not in self._checked:
            self.network.check(Policy.build(layers={name: layer}))
            self._checked.add((name, layer))
        self._held.append(layer)
        cell = self._cells[name, id(layer)] = (self.layers.get(name, _NOWHERE), self._code(layer))
        return cell

    def _code(self, layer: LayerPolicy) -> int:
        if layer not in self._format_codes:
            self._format_codes[layer] = len(self._formats)
            self._formats.append(layer)
        return self._format_codes[layer]

    def _width(self, group: str, fraction: float) -> _Cell:
        policy = Policy.build(keep={group: fraction})
        self.network.check(policy)
        cell = (_NOWHERE, 0)
        if group in self.groups:
            width = self.network.channels(policy)[group]
            if width not in self._widths[group]:
                self._widths[group].append(width)
                self._fractions[group].append(fraction)
            cell = (self.groups[group], self._widths[group].index(width))
        self._cells[group, fraction] = cell
        return cell


def _computed(layer: LayerPolicy) -> LayerPolicy:
    """What kernels compute alike with: how many bits a weight is stored in shows only where they unpack it."""
    return layer if layer.group_size else replace(layer, weight_bits=_INTEGER if layer.integer else _FLOAT)
