"""What a runtime's arena asks the system for while it computes.

ONNX Runtime's arena (``onnxruntime/core/framework/bfc_arena.cc``) hands out pieces of regions: the smallest free piece
that is large enough, or one of a new region. It never gives a region back. Sizes are rounded up to its alignment, and
those of regions to the least power of its growth factor that holds what was asked for. From the second inference on,
one block holds all activations, planned so that they share it as their lifetimes allow; it comes on top where no free
piece is large enough for it.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from kneepoint.hardware_models.device import Memory
from kneepoint.hardware_models.liveness import Buffers

KIB = 1024


class _Piece(NamedTuple):
    """A part of a region."""

    region: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin

    def touches(self, other: _Piece) -> bool:
        """Whether one begins where the other ends."""
        return self.region == other.region and (self.end == other.begin or other.end == self.begin)


@dataclass(frozen=True)
class ArenaUse:
    """What activations cost in memory.

    Attributes:
        touched_bytes: Of the regions, as far as anything was ever written there: what is resident.
        reserved_bytes: Of all regions: what was asked for.
    """

    touched_bytes: int
    reserved_bytes: int


def held(buffers: Buffers, rules: Memory) -> Buffers:
    """The buffers as a device is handed the network's inputs."""
    return buffers.handed_integers() if rules.integer_inputs else buffers


def arena_use(buffers: Buffers, rules: Memory) -> ArenaUse:
    """The regions of the arena once a network has been executed twice.

    Without an arena, both are the peak of the activations that are alive at once.
    """
    buffers = held(buffers, rules)
    peak = int(buffers.alive(rules.alignment).max(initial=0))
    if not rules.region_kb:
        return ArenaUse(peak, peak)
    arena = _Arena(rules)
    _execute(buffers, arena)
    if rules.replanned and peak:
        arena.take(peak)
    return ArenaUse(sum(region.touched for region in arena.regions), sum(region.bytes for region in arena.regions))


def _execute(buffers: Buffers, arena: _Arena) -> None:
    """Takes every buffer when it comes to life, and gives it back when nobody reads it any more."""
    alive: list[tuple[int, _Piece]] = []
    for size, first, last in zip(buffers.bytes.tolist(), buffers.first.tolist(), buffers.last.tolist(), strict=True):
        while alive and alive[0][0] < first:
            arena.give(heapq.heappop(alive)[1])
        if size:
            heapq.heappush(alive, (last, arena.take(size)))
    for _, piece in alive:
        arena.give(piece)


@dataclass
class _Region:
    bytes: int
    touched: int = 0


@dataclass
class _Arena:
    """Regions, and what is free in them.

    Attributes:
        rules: Of the runtime.
        regions: In the order in which they were asked for.
        free: Pieces that nobody uses.
    """

    rules: Memory
    regions: list[_Region] = field(default_factory=list)
    free: list[_Piece] = field(default_factory=list)

    def take(self, size: int) -> _Piece:
        """The smallest free piece of at least ``size`` bytes; what it has more stays free."""
        size = math.ceil(size / self.rules.alignment) * self.rules.alignment
        fitting = [piece for piece in self.free if piece.size >= size] or [self._extend(size)]
        found = min(fitting, key=lambda piece: (piece.size, piece))
        self.free.remove(found)
        taken = _Piece(found.region, found.begin, found.begin + size)
        if taken.end < found.end:
            self.free.append(_Piece(found.region, taken.end, found.end))
        region = self.regions[taken.region]
        region.touched = max(region.touched, taken.end)
        return taken

    def give(self, piece: _Piece) -> None:
        """Frees a piece, and joins it with its free neighbours."""
        for other in [free for free in self.free if free.touches(piece)]:
            self.free.remove(other)
            piece = _Piece(piece.region, min(piece.begin, other.begin), max(piece.end, other.end))
        self.free.append(piece)

    def _extend(self, size: int) -> _Piece:
        region = int(self.rules.region_kb * KIB)
        while region < size and self.rules.growth > 1:
            region *= self.rules.growth
        self.regions.append(_Region(max(region, size)))
        self.free.append(_Piece(len(self.regions) - 1, 0, max(region, size)))
        return self.free[-1]
