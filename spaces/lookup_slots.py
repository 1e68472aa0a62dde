"""Numbers that depend on a few variables of a policy, looked up for many policies at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
UNKNOWN = -1
_DENSE = 1 << 15
"""Up to so many keys a table has a row for every one; beyond, keys are searched for."""
_LARGEST = 1 << 62


@dataclass(frozen=True)
class Entry:
    """What a slot holds for one combination of its variables.

    Attributes:
        amount: The number.
        states: A code for every state that the slot hands on.
    """

    amount: float
    states: tuple[int, ...] = ()


@dataclass
class Slot:
    """A table over some columns of encoded policies, and states that other slots hand on.

    Attributes:
        columns: Which variables decide.
        reads: Names of the states that do, too.
        writes: Names of the states it hands on.
    """

    columns: tuple[int, ...]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    _entries: dict[int, Entry] = field(default_factory=dict)
    _strides: tuple[int, ...] = ()
    _keys: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    _places: Integers | None = None
    _amounts: Floats = field(default_factory=lambda: np.zeros(1))
    _states: Integers = field(default_factory=lambda: np.zeros((0, 1), np.int64))
    _size: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    def reset(self, radices: Sequence[int]) -> bool:
        """Forget all entries; keys are numbers with these radices from now on. Whether they still fit 64 bits.

        Args:
            radices: Of the columns, then of the states that are read.
        """
        strides, size = [], 1
        for radix in radices:
            strides.append(size)
            size *= radix
        self._strides, self._size, self._entries = tuple(strides), size, {}
        self.freeze()
        return size < _LARGEST

    def take(self, more: int | str) -> None:
        """Depend on one more column, or state, from the next :meth:`reset` on."""
        if isinstance(more, str):
            self.reads = (*self.reads, more)
        else:
            self.columns = (*self.columns, more)

    def keys(self, variables: Integers, states: dict[str, Integers]) -> Integers:
        """(policies,) the key of every policy; ``UNKNOWN`` where a state is not known.

        Args:
            variables: (variables, policies), codes.
            states: (policies,) codes by name.
        """
        keys = np.zeros(variables.shape[1], np.int64)
        for column, stride in zip(self.columns, self._strides, strict=False):
            keys += variables[column] * stride
        for name, stride in zip(self.reads, self._strides[len(self.columns) :], strict=True):
            keys = np.where((states[name] < 0) | (keys < 0), UNKNOWN, keys + states[name] * stride)
        return keys

    def learn(self, keys: Integers, amounts: Floats, states: Sequence[Integers]) -> bool:
        """Add entries; whether none of them contradicts another.

        Args:
            keys: (policies,) from :meth:`keys`.
            amounts: (policies,).
            states: (policies,) codes of each state that the slot hands on.
        """
        handed = np.array([*states, np.zeros_like(keys)]).T[:, :-1].tolist()
        entries = (Entry(amount, tuple(codes)) for amount, codes in zip(amounts.tolist(), handed, strict=True))
        agreed = [
            self._entries.setdefault(key, entry) == entry for key, entry in zip(keys.tolist(), entries, strict=True)
        ]
        return all(agreed)

    def freeze(self) -> None:
        """Make what was learned ready to be looked up."""
        keys = sorted(self._entries)
        entries = [self._entries[key] for key in keys]
        self._keys = np.array(keys, np.int64)
        self._amounts = np.array([*(entry.amount for entry in entries), 0.0])
        listed = [*(entry.states for entry in entries), (UNKNOWN,) * len(self.writes)]
        self._states = np.ascontiguousarray(np.array(listed, np.int64).reshape(len(listed), -1).T)
        self._places = None
        if self._size <= _DENSE:
            self._places = np.full(self._size + 1, len(keys), np.int64)  # the last one is that of the unknown key
            self._places[self._keys] = np.arange(len(keys))

    def look_up(self, keys: Integers, states: dict[str, Integers]) -> tuple[Floats, NDArray[np.bool_]]:
        """The amounts, 0 where a key is not known, and which ones are known; hands on the states.

        Args:
            keys: (policies,) from :meth:`keys`.
            states: (policies,) codes by name; those that the slot writes are added.
        """
        if self._places is not None:
            places = np.take(self._places, keys, mode="wrap")
        else:
            places = np.searchsorted(self._keys, keys)
            places[np.append(self._keys, UNKNOWN)[places] != keys] = len(self._keys)
        for name, codes in zip(self.writes, self._states, strict=False):
            states[name] = codes[places]
        return self._amounts[places], places < len(self._keys)
