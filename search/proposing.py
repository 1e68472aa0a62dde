"""The seam between a search and what proposes its settings: ask for one, tell what it scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kneepoint.search.record import Record
from kneepoint.spaces.joint_space import Choice
from kneepoint.tasks.metrics import Score


@dataclass(frozen=True)
class Asked:
    """One proposal.

    Attributes:
        number: Of the proposal; each is told once, in any order.
        parameters: The whole setting.
    """

    number: int
    parameters: dict[str, Choice]


class Proposals(Protocol):
    """Proposes settings, and learns from what they scored."""

    def ask(self) -> Asked:
        """The next setting to measure."""

    def tell(self, asked: Asked, scores: Mapping[str, Score] | None, violations: Sequence[float]) -> None:
        """The outcome of a setting that was asked for: scores, or None for a failure; violations of constraints."""

    def enqueue(self, settings: Iterable[Mapping[str, Choice]]) -> None:
        """Settings that are asked for before any others."""

    def add(self, record: Record, violations: Sequence[float]) -> None:
        """A proposal that somebody else measured."""
