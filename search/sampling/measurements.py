"""Finished trials as arrays that grow: what is known of the first is not computed again for every one that follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kneepoint.search.pareto import non_dominated
from kneepoint.search.sampling.evidence import Evidence, Rows, keys
from kneepoint.search.sampling.posterior import Codes, Floats

Losses = Callable[[Floats], Floats]
"""From (settings, objectives) values to losses, 0 the ideal and 1 the worst useful value."""
_FIRST_ROOM = 64


class Measurements:
    """Finished trials with finite values.

    Args:
        parameters: How many a setting has.
        signs: For every value of a trial 1 where it is minimized, and -1 where it is maximized.
    """

    def __init__(self, parameters: int, signs: Floats) -> None:
        objectives = len(signs)
        self._signs = signs
        self._numbers = _Table(1, np.int64)
        self._codes = _Table(parameters, np.int64)
        self._values = _Table(objectives, np.float64)
        self._value_errors = _Table(objectives, np.float64)
        self._feasible = _Table(1, np.bool_)
        self._keys: set[int] = set()
        self._latest = -1
        self._losses = _Table(objectives, np.float64)
        self._errors = _Table(objectives, np.float64)
        self._front: Rows = np.zeros(0, np.int64)
        self._seen = 0

    def __len__(self) -> int:
        return len(self._numbers.rows)

    @property
    def values(self) -> Floats:
        """(trials, objectives)."""
        return self._values.rows

    def append(self, number: int, codes: Codes, values: Floats, errors: Floats, feasible: bool) -> None:
        """One more: its number, (parameters,) codes, (objectives,) values and standard errors."""
        self._numbers.append([number])
        self._codes.append(codes)
        self._values.append(values)
        self._value_errors.append(errors)
        self._feasible.append([feasible])
        self._keys.update(keys(codes[None]))
        self._latest = max(self._latest, number)

    def evidence(self, before: int, pending: Codes, losses: Losses, *, fixed: bool) -> Evidence | None:
        """What the trials below a number say; None if there are none.

        Args:
            before: The number.
            pending: (settings, parameters) that are being measured.
            losses: Of values.
            fixed: Whether ``losses`` is the same at every call, so that those of earlier calls still hold.
        """
        if not fixed:
            self._forget()
        self._follow(losses)
        self._extend_front()
        if self._latest >= before:
            rows = np.flatnonzero(self._numbers.rows[:, 0] < before)
            return self._part(rows, pending) if len(rows) else None
        return self._all(pending) if len(self) else None

    def _forget(self) -> None:
        self._losses.clear()
        self._errors.clear()

    def _follow(self, losses: Losses) -> None:
        """Losses and errors of what was measured since the last time."""
        first = len(self._losses.rows)
        values, noise = self._values.rows[first:], self._value_errors.rows[first:]
        if len(values):
            found = losses(values)
            self._losses.extend(found)
            self._errors.extend(np.abs(losses(values + noise) - found) if noise.any() else np.zeros_like(found))

    def _extend_front(self) -> None:
        """By what was measured since the last time. It is one of values: losses keep their order."""
        first, self._seen = self._seen, len(self)
        if first == len(self):
            return
        feasible = self._feasible.rows[:, 0]
        rows = np.concatenate((self._front, np.arange(first, len(self))))
        if feasible[first:].any() or feasible[self._front].any():
            rows = rows[feasible[rows]]
        signed = self._values.rows[rows] * self._signs
        self._front = np.asarray(rows[non_dominated(signed)], np.int64)

    def _all(self, pending: Codes) -> Evidence:
        feasible = self._feasible.rows[:, 0]
        codes, losses, errors = self._codes.rows, self._losses.rows, self._errors.rows
        return Evidence(codes, losses, errors, feasible, pending, self._front, self._keys)

    def _part(self, rows: Rows, pending: Codes) -> Evidence:
        feasible = self._feasible.rows[rows, 0]
        return Evidence(self._codes.rows[rows], self._losses.rows[rows], self._errors.rows[rows], feasible, pending)


class _Table:
    """Rows of a few columns, with room for more."""

    def __init__(self, columns: int, kind: npt.DTypeLike) -> None:
        self._data: npt.NDArray[Any] = np.zeros((_FIRST_ROOM, columns), kind)
        self._count = 0

    @property
    def rows(self) -> npt.NDArray[Any]:
        """All of them; valid until there are more."""
        return self._data[: self._count]

    def append(self, row: npt.ArrayLike) -> None:
        """One more row."""
        self.extend(np.asarray(row)[None])

    def extend(self, rows: npt.NDArray[Any]) -> None:
        """More rows."""
        while self._count + len(rows) > len(self._data):
            self._data = np.concatenate((self._data, np.zeros_like(self._data)))
        self._data[self._count : self._count + len(rows)] = rows
        self._count += len(rows)

    def clear(self) -> None:
        """No rows, with the room they had."""
        self._count = 0
