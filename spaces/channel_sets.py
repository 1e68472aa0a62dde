"""Sets of channels that stand or fall together: a union-find, with the reason why a set is fixed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Run:
    """A part of an axis: the channels of one set, each ``repeat`` elements wide."""

    set: int
    channels: int
    repeat: int = 1


Runs = tuple[Run, ...]
"""An axis from its first element to its last."""


@dataclass
class ChannelSets:
    """All sets of one network; sets are numbers, in the order they were made.

    Attributes:
        origin: The layer that made each set; empty for channels that no layer makes.
        width: Channels of each set.
    """

    origin: list[str] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    _parent: list[int] = field(default_factory=list)
    _reason: dict[int, str] = field(default_factory=dict)

    def new(self, origin: str, channels: int) -> Runs:
        """An axis of ``channels`` that nothing ties to another axis yet."""
        self._parent.append(len(self._parent))
        self.origin.append(origin)
        self.width.append(channels)
        return (Run(len(self._parent) - 1, channels),)

    def constant(self, channels: int, why: str) -> Runs:
        """An axis of ``channels`` that is fixed from the start."""
        runs = self.new("", channels)
        self.freeze(runs, why)
        return runs

    def find(self, item: int) -> int:
        """The representative of a set: the first one of those that were united."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def unite(self, a: Runs, b: Runs, why: str) -> None:
        """Make two axes vary together; axes cut differently cannot, and freeze for the reason ``why``."""
        if [(run.channels, run.repeat) for run in a] != [(run.channels, run.repeat) for run in b]:
            self.freeze(a, why)
            self.freeze(b, why)
            return
        for left, right in zip(a, b, strict=True):
            first, second = sorted((self.find(left.set), self.find(right.set)))
            self._parent[second] = first
            if second in self._reason:
                self._reason.setdefault(first, self._reason[second])

    def freeze(self, runs: Runs, why: str) -> None:
        """Fix the channels of an axis; the first reason is kept."""
        for run in runs:
            self._reason.setdefault(self.find(run.set), why)

    def why_fixed(self, item: int) -> str:
        """Why a set cannot vary; empty where it can."""
        root = self.find(item)
        return self._reason.get(root, "" if self.width[root] > 1 else "it has one channel")
