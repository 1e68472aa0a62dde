"""Conditions over scores: the constraints of a search and the filter of a pick.

    condition  = comparison {"and" comparison}
    comparison = NAME ("<=" | "<" | ">=" | ">") bound
    bound      = NUMBER | [NUMBER "*"] "teacher"

NAME is an objective's, or an objective's with ``_drop`` behind it: how much worse than the fp32 teacher, in its own
unit.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kneepoint.tasks.errors import ObjectiveError, nearest

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_COMPARISON = re.compile(
    rf"^\s*(?P<name>[A-Za-z_][\w.@/-]*)\s*(?P<operator><=|>=|<|>)\s*"
    rf"(?:(?P<factor>{_NUMBER})\s*(?P<relative>\*\s*teacher)?|(?P<teacher>teacher))\s*$"
)
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
_DROP = "_drop"


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Attributes:
        objective: The objective it reads.
        drop: Whether it reads the drop against the teacher instead of the value.
        operator: One of ``<= < >= >``.
        factor: The bound, or the factor of the teacher's value.
        relative: Whether the bound is ``factor`` times the teacher's value.
        text: As the user wrote it.
    """

    objective: str
    drop: bool
    operator: str
    factor: float
    relative: bool
    text: str

    def holds(self, values: Mapping[str, float], teacher: Mapping[str, float], directions: Mapping[str, str]) -> bool:
        """Whether the candidate with these values meets it."""
        return _OPERATORS[self.operator](self._left(values, teacher, directions), self._bound(teacher))

    def violation(
        self, values: Mapping[str, float], teacher: Mapping[str, float], directions: Mapping[str, str]
    ) -> float:
        """By how much it is missed, in the objective's unit; 0 where it holds, and above 0 where it does not.

        A value that is not a number misses every bound by infinity.
        """
        if self.holds(values, teacher, directions):
            return 0.0
        missed = abs(self._left(values, teacher, directions) - self._bound(teacher))
        return math.inf if math.isnan(missed) else max(missed, sys.float_info.min)

    def limit(self, teacher: Mapping[str, float], directions: Mapping[str, str]) -> float | None:
        """The worst value of the objective that meets it; None where it holds good values off rather than bad ones."""
        minimized = directions[self.objective] == "minimize"
        upper = self.operator in ("<=", "<")
        if self.drop:
            change = self._bound(teacher) if minimized else -self._bound(teacher)
            return self._read(teacher, "teacher's") + change if upper else None
        return self._bound(teacher) if upper == minimized else None

    def _read(self, values: Mapping[str, float], whose: str) -> float:
        if self.objective not in values:
            raise ObjectiveError(
                f"{self.text!r} needs the {whose} {self.objective!r}; {nearest(self.objective, values)}"
            )
        return values[self.objective]

    def _left(self, values: Mapping[str, float], teacher: Mapping[str, float], directions: Mapping[str, str]) -> float:
        value = self._read(values, "candidate's")
        if not self.drop:
            return value
        worse = self._read(teacher, "teacher's") - value
        return worse if directions[self.objective] == "maximize" else -worse

    def _bound(self, teacher: Mapping[str, float]) -> float:
        return self.factor * (self._read(teacher, "teacher's") if self.relative else 1.0)


@dataclass(frozen=True)
class Condition:
    """Comparisons that must all hold."""

    comparisons: tuple[Comparison, ...]

    @classmethod
    def parse(cls, text: str, names: Iterable[str] | None = None) -> Condition:
        """Read ``text``.

        Args:
            text: See the grammar at the top of this module.
            names: The objectives it may name; None allows any.

        Raises:
            ObjectiveError: If it does not follow the grammar or names an unknown objective.
        """
        known = None if names is None else list(names)
        return cls(tuple(_comparison(part, known) for part in re.split(r"\sand\s", text)))

    @classmethod
    def of(cls, texts: Iterable[str], names: Iterable[str] | None = None) -> Condition:
        """All of several conditions."""
        known = None if names is None else list(names)
        return cls(tuple(part for text in texts for part in cls.parse(text, known).comparisons))

    @property
    def objectives(self) -> list[str]:
        """Names of the objectives it reads."""
        return list(dict.fromkeys(comparison.objective for comparison in self.comparisons))

    def holds(self, values: Mapping[str, float], teacher: Mapping[str, float], directions: Mapping[str, str]) -> bool:
        """Whether all hold for a candidate with these values (a condition without comparisons always does)."""
        return all(comparison.holds(values, teacher, directions) for comparison in self.comparisons)

    def violations(
        self, values: Mapping[str, float], teacher: Mapping[str, float], directions: Mapping[str, str]
    ) -> list[float]:
        """By how much each comparison is missed; zeros where they hold."""
        return [comparison.violation(values, teacher, directions) for comparison in self.comparisons]


def _comparison(text: str, known: list[str] | None) -> Comparison:
    match = _COMPARISON.match(text)
    if match is None:
        raise ObjectiveError(
            "a condition reads like 'accuracy_drop <= 0.05', 'size_mb <= 0.25 * teacher' or "
            f"'latency_ms@DEVICE <= 3 and size_mb <= 1'; got {text.strip()!r}"
        )
    name = match["name"]
    drop = name.endswith(_DROP) and (known is None or name not in known)
    objective = name.removesuffix(_DROP) if drop else name
    if known is not None and objective not in known:
        raise ObjectiveError(f"unknown objective {objective!r} in {text.strip()!r}; {nearest(objective, known)}")
    relative = bool(match["relative"] or match["teacher"])
    factor = float(match["factor"]) if match["factor"] else 1.0
    if not math.isfinite(factor):
        raise ObjectiveError(f"a bound is a finite number; got {match['factor']} in {text.strip()!r}")
    return Comparison(objective, drop, match["operator"], factor, relative, text.strip())
