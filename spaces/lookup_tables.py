"""Tables that are looked up together: each takes variables, and states that the tables before it hand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneepoint.spaces.lookup_slots import UNKNOWN, Floats, Integers, Slot

_DIGITS = 14
"""Decimals that amounts are rounded to, so that sums in another order do not contradict each other."""


@dataclass(frozen=True)
class Lesson:
    """What one policy really gave.

    Attributes:
        variables: (variables,) its codes.
        states: The state of every name that a slot hands on, as anything hashable.
        amounts: (slots,).
    """

    variables: Integers
    states: dict[str, object]
    amounts: Floats


@dataclass(frozen=True)
class Found:
    """What was looked up.

    Attributes:
        keys: (slots, policies).
        hits: (slots, policies) bool, whether the slot knows the key.
        amounts: (slots, policies), 0 where it does not.
    """

    keys: Integers
    hits: NDArray[np.bool_]
    amounts: Floats

    @property
    def complete(self) -> bool:
        """Whether every slot knew every key."""
        return bool(self.hits.all())

    def wanted(self) -> list[Integers]:
        """For every slot, rows of policies that would teach it something: one for each key that it does not know."""
        found = []
        for keys, hits in zip(self.keys, self.hits, strict=True):
            missing = np.flatnonzero(~hits & (keys != UNKNOWN))
            found.append(missing[np.unique(keys[missing], return_index=True)[1]])
        return found


class LookupTables:
    """Slots that learn from whole policies.

    Where two lessons contradict each other in a slot, it depends on more than it was given: of the variables and states
    of its neighbours it takes those that explain most of what all lessons so far have said, and learns again.

    Args:
        slots: In an order in which states are handed on before they are read.
        neighbours: For every slot, the others whose variables and states it takes first.

    Attributes:
        too_large: Whether the variables of some slot no longer make one number; nothing can be looked up then.
    """

    def __init__(self, slots: Sequence[Slot], neighbours: Sequence[frozenset[int]]) -> None:
        self.slots = slots
        self.too_large = False
        self._given = [(slot.columns, slot.reads) for slot in slots]
        self._neighbours = neighbours
        self._lessons: list[Lesson] = []
        self._learned = 0
        self._codes: dict[str, dict[object, int]] = {name: {} for slot in slots for name in slot.writes}
        self._radices: tuple[int, ...] = ()

    @property
    def entries(self) -> int:
        """What all slots know together."""
        return sum(len(slot) for slot in self.slots)

    def make_room(self, known: Sequence[int]) -> None:
        """Let keys hold as many codes as there are by now.

        Args:
            known: How many codes every variable has.
        """
        radices = tuple(_power_of_two(count) for count in (*known, *map(len, self._codes.values())))
        if radices != self._radices:
            self._radices = radices
            for slot in self.slots:
                self._empty(slot)
            self._learned = 0
            self._replay()

    def learn(self, lessons: Sequence[Lesson], known: Sequence[int]) -> None:
        """Take what some policies really gave.

        Args:
            lessons: Of these policies.
            known: How many codes every variable has.
        """
        for lesson in lessons:
            for name, codes in self._codes.items():
                codes.setdefault(lesson.states[name], len(codes))
        self._lessons += lessons
        self.make_room(known)
        self._replay()

    def look_up(self, variables: Integers) -> Found:
        """What the slots know of policies.

        Args:
            variables: (variables, policies), codes.
        """
        shape = (len(self.slots), variables.shape[1])
        found = Found(np.empty(shape, np.int64), np.empty(shape, np.bool_), np.empty(shape))
        states: dict[str, Integers] = {}
        for index, slot in enumerate(self.slots):
            keys = slot.keys(variables, states)
            found.keys[index] = keys
            found.amounts[index], found.hits[index] = slot.look_up(keys, states)
        return found

    def _empty(self, slot: Slot) -> None:
        """Make a slot forget; its keys are made anew."""
        variables = len(self._radices) - len(self._codes)
        states = dict(zip(self._codes, self._radices[variables:], strict=True))
        radices = [self._radices[column] for column in slot.columns] + [states[name] for name in slot.reads]
        self.too_large |= not slot.reset(radices)

    def _replay(self) -> None:
        """Learn what has not been learned yet; a slot that it contradicts depends on more, and learns all again."""
        if self._learned == len(self._lessons):
            return
        new = _Taught.of(self._lessons[self._learned :], self._codes)
        self._learned = len(self._lessons)
        contradicted = [index for index, slot in enumerate(self.slots) if not new.teach(index, slot)]
        every = _Taught.of(self._lessons, self._codes) if contradicted else new
        for index in contradicted:
            self._explain(index, every)
            self._empty(self.slots[index])
            self.too_large |= not every.teach(index, self.slots[index])
        for slot in self.slots:
            slot.freeze()

    def _explain(self, index: int, taught: _Taught) -> None:
        """Give a slot as few more variables and states as explain all lessons, the nearest first."""
        slot = self.slots[index]
        slot.columns, slot.reads = self._given[index]
        given = [*(taught.variables[column] for column in slot.columns), *(taught.states[name] for name in slot.reads)]
        outcomes = _numbered([taught.amounts[index], *(taught.states[name] for name in slot.writes)])
        keys = _numbered(given) if given else np.zeros_like(outcomes)
        near = frozenset({index})
        while unexplained := _unexplained(keys, outcomes):
            options = self._options(index, near, taught)
            left = {name: _unexplained(_numbered([keys, codes]), outcomes) for name, codes in options.items()}
            best = min(left, key=lambda name: left[name], default=None)
            if best is not None and left[best] < unexplained:
                keys = _numbered([keys, options[best]])
                slot.take(best)
                continue
            wider = near.union(*(self._neighbours[other] for other in near))
            if wider == near:
                self.too_large = True
                return
            near = wider

    def _options(self, index: int, near: frozenset[int], taught: _Taught) -> dict[int | str, Integers]:
        """States that are known when a slot is looked up, and variables, of some slots; by name or column."""
        before = [name for other in sorted(near) if other < index for name in self.slots[other].writes]
        columns = [column for other in sorted(near) for column in self._given[other][0]]
        options: dict[int | str, Integers] = {name: taught.states[name] for name in before}
        options.update({column: taught.variables[column] for column in columns})
        return options


@dataclass(frozen=True)
class _Taught:
    """Lessons as arrays.

    Attributes:
        variables: (variables, lessons).
        states: (lessons,) codes by name.
        amounts: (slots, lessons).
    """

    variables: Integers
    states: dict[str, Integers]
    amounts: Floats

    @classmethod
    def of(cls, lessons: Sequence[Lesson], codes: Mapping[str, Mapping[object, int]]) -> _Taught:
        """The arrays of ``lessons``."""
        return cls(
            variables=np.array([lesson.variables for lesson in lessons], np.int64).T,
            states={
                name: np.array([known[lesson.states[name]] for lesson in lessons], np.int64)
                for name, known in codes.items()
            },
            amounts=np.array([lesson.amounts for lesson in lessons]).T.round(_DIGITS),
        )

    def teach(self, index: int, slot: Slot) -> bool:
        """Whether ``slot`` could learn all of it without a contradiction."""
        handed = [self.states[name] for name in slot.writes]
        return slot.learn(slot.keys(self.variables, self.states), self.amounts[index], handed)


def _numbered(columns: Sequence[NDArray[Any]]) -> Integers:
    """(rows,) a number for every distinct combination of columns."""
    found = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values = np.unique(column, return_inverse=True)[1]
        found = np.unique(found * (int(values.max(initial=0)) + 1) + values, return_inverse=True)[1]
    return found


def _unexplained(keys: Integers, outcomes: Integers) -> int:
    """How many rows do not have the most frequent outcome of their key."""
    width = int(outcomes.max(initial=0)) + 1
    pairs, counts = np.unique(keys * width + outcomes, return_counts=True)
    largest = np.zeros(int(keys.max(initial=0)) + 1, np.int64)
    np.maximum.at(largest, pairs // width, counts)
    return int(len(keys) - largest.sum())


def _power_of_two(count: int) -> int:
    return 1 << max(1, (count - 1).bit_length())
