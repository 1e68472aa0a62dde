"""Sets of channels that stand or fall together: a union-find, with the reason why a set is fixed.

A set starts as the output channels of one layer, each of which may be kept or dropped alone. What the network does
with them may tie them closer: a set is *split* where its parts go different ways (the halves of a gate), and
*coarsened* where its channels only make sense in blocks (the groups of a convolution). Both replace the set by others;
axes that were written down before are brought up to date by :meth:`ChannelSets.resolve`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Run:
    """A part of an axis: the channels of one set, each ``repeat`` elements wide."""

    set: int
    channels: int
    repeat: int = 1

    @property
    def elements(self) -> int:
        """Length of this part of the axis."""
        return self.channels * self.repeat


Runs = tuple[Run, ...]
"""An axis from its first element to its last."""


@dataclass(frozen=True)
class ChannelSet:
    """Channels that a layer made.

    Attributes:
        origin: The layer; empty for channels that no layer makes.
        width: How many channels; blocks of them, once coarsened.
        age: How many axes were made before the one that this is a part of.
        first: The layer's first channel that belongs to the set.
        grain: Channels of the layer in each channel of the set.
    """

    origin: str
    width: int
    age: int
    first: int = 0
    grain: int = 1


@dataclass
class ChannelSets:
    """All sets of one network; sets are numbers, in the order they were made."""

    _sets: list[ChannelSet] = field(default_factory=list)
    _parent: list[int] = field(default_factory=list)
    _replaced: dict[int, Runs] = field(default_factory=dict)
    """What took the place of a set that was split or coarsened, as if it was an axis of it alone."""
    _reason: dict[int, str] = field(default_factory=dict)

    def new(self, origin: str, channels: int) -> Runs:
        """An axis of ``channels`` that nothing ties to another axis yet."""
        return (self._add(ChannelSet(origin, channels, len(self._sets))),)

    def constant(self, channels: int, why: str) -> Runs:
        """An axis of ``channels`` that is fixed from the start."""
        runs = self.new("", channels)
        self.freeze(runs, why)
        return runs

    def resolve(self, runs: Runs) -> Runs:
        """The same axis in terms of the sets there are now."""
        return tuple(part for run in runs for part in self._resolved(run))

    def freeze(self, runs: Runs, why: str) -> None:
        """Fix the channels of an axis; the first reason is kept."""
        for run in self.resolve(runs):
            self._reason.setdefault(run.set, why)

    def why_fixed(self, run: Run) -> str:
        """Why a resolved part of an axis cannot vary; empty where it can."""
        return self._reason.get(run.set, "" if run.channels > 1 else "it has one channel")

    def width(self, item: int) -> int:
        """How many channels a set has."""
        return self._sets[item].width

    def names(self) -> dict[int, str]:
        """Names of the sets that may vary, by number.

        A set is named after the layer that made it first. Where several sets of a layer vary apart, the number of the
        part follows: it says the same about a network of another width, as numbers of channels would not.
        """
        parts: dict[str, list[int]] = {}
        for item in sorted(range(len(self._sets)), key=self._seniority):
            if self._find(item) == item and item not in self._replaced:
                parts.setdefault(self._sets[item].origin, []).append(item)
        return {
            item: origin if sum(not self._is_fixed(part) for part in found) == 1 else f"{origin}[{number}]"
            for origin, found in parts.items()
            for number, item in enumerate(found)
            if not self._is_fixed(item)
        }

    def unite(self, a: Runs, b: Runs, why: str) -> None:
        """Make two axes of one length vary together.

        Their sets are split and coarsened until they match; axes that cannot match freeze for the reason ``why``.
        """
        while (apart := self._first_difference(a, b)) is not None:
            left, right = apart
            common, block = min(left.elements, right.elements), math.lcm(left.repeat, right.repeat)
            if common % block:
                self.freeze(a, why)
                self.freeze(b, why)
                return
            if left.elements != right.elements:
                longer = left if left.elements > right.elements else right
                self._split(longer.set, common // longer.repeat)
            elif left.repeat != right.repeat:
                for run in (left, right):
                    self._coarsen(run.set, block // run.repeat, why)
            else:
                self._join(left.set, right.set)

    def divide(self, runs: Runs, position: int, why: str) -> tuple[Runs, Runs]:
        """The elements of an axis before ``position`` and those from there on, which then vary apart.

        A channel that the cut would go through is fixed for the reason ``why``.
        """
        resolved, offset, index = self.resolve(runs), 0, 0
        while index < len(resolved) and offset + resolved[index].elements <= position:
            offset += resolved[index].elements
            index += 1
        if offset == position:
            return resolved[:index], resolved[index:]
        run, inside = resolved[index], position - offset
        if inside % run.repeat == 0:
            self._split(run.set, inside // run.repeat)
            return self.divide(resolved, position, why)
        self.freeze((run,), why)
        before, after = self.constant(inside, why), self.constant(run.elements - inside, why)
        return (*resolved[:index], *before), (*after, *resolved[index + 1 :])

    def coarsen(self, runs: Runs, block: int, why: str) -> None:
        """Keep or drop every ``block`` elements of an axis together.

        Channels that share a block with those of another set are fixed for the reason ``why``.
        """
        offset = 0
        for stale in self.resolve(runs):
            for run in self.resolve((stale,)):
                if offset % block or run.elements % block:
                    self.freeze((run,), why)
                else:
                    self._coarsen(run.set, math.lcm(block, run.repeat) // run.repeat, why)
                offset += run.elements

    def scale(self, runs: Runs, before: int, after: int, why: str) -> Runs:
        """An axis with ``after`` elements for every ``before`` elements of ``runs``, which vary in such blocks."""
        self.coarsen(runs, before, why)
        result: list[Run] = []
        fixed, reason = 0, ""
        for run in self.resolve(runs):
            if found := self.why_fixed(run):
                fixed, reason = fixed + run.elements, reason or found
                continue
            result.extend(self.constant(fixed * after // before, reason) if fixed else ())
            result.append(replace(run, repeat=run.repeat // before * after))
            fixed, reason = 0, ""
        result.extend(self.constant(fixed * after // before, reason) if fixed else ())
        return tuple(result)

    # --- sets -------------------------------------------------------------------------------------------------------

    def _add(self, made: ChannelSet) -> Run:
        self._parent.append(len(self._parent))
        self._sets.append(made)
        return Run(len(self._sets) - 1, made.width)

    def _find(self, item: int) -> int:
        """The representative of a set: the most senior one of those that were united."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def _seniority(self, item: int) -> tuple[int, int]:
        return self._sets[item].age, self._sets[item].first

    def _resolved(self, run: Run) -> list[Run]:
        root = self._find(run.set)
        inner = self._replaced.get(root)
        if inner is None:
            return [replace(run, set=root)]
        return [replace(part, repeat=part.repeat * run.repeat) for entry in inner for part in self._resolved(entry)]

    def _first_difference(self, a: Runs, b: Runs) -> tuple[Run, Run] | None:
        pairs = zip(self.resolve(a), self.resolve(b), strict=False)
        return next(((left, right) for left, right in pairs if left != right), None)

    def _join(self, a: int, b: int) -> None:
        first, second = sorted((a, b), key=self._seniority)
        self._parent[second] = first
        if second in self._reason:
            self._reason.setdefault(first, self._reason[second])

    def _split(self, item: int, channels: int) -> None:
        whole = self._sets[item]
        head = replace(whole, width=channels)
        tail = replace(whole, width=whole.width - channels, first=whole.first + channels * whole.grain)
        self._replace(item, (self._add(head), self._add(tail)))

    def _coarsen(self, item: int, factor: int, why: str) -> None:
        if factor == 1 or self._find(item) != item or item in self._replaced:
            return
        fine = self._sets[item]
        run = self._add(replace(fine, width=fine.width // factor, grain=fine.grain * factor))
        self._replace(item, (replace(run, repeat=factor),))
        if run.channels == 1:
            self.freeze((run,), why)

    def _replace(self, item: int, runs: Runs) -> None:
        self._replaced[item] = runs
        if item in self._reason:
            self.freeze(runs, self._reason[item])

    def _is_fixed(self, item: int) -> bool:
        return bool(self.why_fixed(Run(item, self._sets[item].width)))
