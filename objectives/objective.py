"""What a candidate is scored on: one small class, or a function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kneepoint.objectives.view import View
from kneepoint.tasks.errors import ObjectiveError
from kneepoint.tasks.metrics import Score
from kneepoint.tasks.task import Task

Direction = Literal["maximize", "minimize"]
ObjectiveFunction = Callable[[View], "float | Score"]
COST_MARGIN = 1.1
"""The worst useful cost is this many times the fp32 teacher's."""


@dataclass(frozen=True)
class Scale:
    """Maps an objective to [0, 1], 0 the best: (ideal - value) / (ideal - worst).

    Attributes:
        worst: Maps to 1. A candidate at or beyond it adds nothing to the hypervolume.
        ideal: Maps to 0.
    """

    worst: float
    ideal: float

    def __call__(self, value: float) -> float:
        """Where ``value`` lies between ideal (0) and worst (1); it may lie beyond either."""
        return (self.ideal - value) / (self.ideal - self.worst)

    @property
    def span(self) -> float:
        """The distance between ideal and worst; above 0."""
        return abs(self.ideal - self.worst)


class Objective(ABC):
    """One thing to maximize or minimize.

    Attributes:
        name: Carries unit and device, as in ``latency_ms@raspberry-pi-4b``.
        direction: ``maximize`` or ``minimize``.
        unit: For people; may be empty.
        device: The device whose front it belongs to, or an empty string for every front.
        predicted: Whether its scores follow from the network and the policy alone, without outputs or an artifact.
        conditions: What else its scores depend on; a run is resumed only where it is the same. Mostly nothing.
    """

    name: str
    direction: Direction = "minimize"
    unit: str = ""
    device: str = ""
    predicted: bool = False
    conditions: str = ""

    @abstractmethod
    def score(self, view: View) -> Score:
        """The candidate's score, with one standard error where it is known."""

    def bind(self, task: Task) -> Objective:
        """The objective for this task; only those that depend on the task's metric differ."""
        del task
        return self

    def scale(self, task: Task, teacher: Score) -> Scale:
        """The scale of hypervolumes, fixed before the first trial from the task and the fp32 teacher alone.

        Costs run from 0 to 1.1 times the teacher's. An objective of unknown range runs from 100 % worse to 10 % better
        than the teacher.
        """
        del task
        size = abs(teacher.value) or 1.0
        if self.direction == "minimize":
            return Scale(worst=COST_MARGIN * size, ideal=0.0) if teacher.value >= 0 else _around(teacher.value, -size)
        return _around(teacher.value, size)


def _around(teacher: float, size: float) -> Scale:
    return Scale(worst=teacher - size, ideal=teacher + (COST_MARGIN - 1.0) * size)


class FunctionObjective(Objective):
    """A user's function as an objective."""

    def __init__(self, function: ObjectiveFunction, name: str, direction: Direction, unit: str = "") -> None:
        self.function = function
        self.name = name
        self.direction = direction
        self.unit = unit

    def score(self, view: View) -> Score:
        """What the function returns; a bare number has no error.

        Raises:
            ObjectiveError: If the function returns neither a number nor a Score.
        """
        value: object = self.function(view)
        if isinstance(value, Score):
            return value
        try:
            if isinstance(value, str):  # which float() would read
                raise TypeError
            return Score(float(value))  # type: ignore[arg-type]  # whatever converts: a 0-d tensor, for one
        except (TypeError, ValueError) as error:
            raise ObjectiveError(
                f"objective {self.name!r} must return a float or a kneepoint.Score; got {type(value).__name__}"
            ) from error


def objective(
    function: ObjectiveFunction, *, name: str | None = None, direction: Direction | None = None, unit: str = ""
) -> FunctionObjective:
    """An objective from ``f(view) -> float | Score``.

    Args:
        function: See :class:`kneepoint.objectives.view.View` for what it may ask.
        name: By default the function's name.
        direction: ``maximize`` or ``minimize``; by default the function's attribute ``direction``.
        unit: For people.

    Raises:
        ObjectiveError: If there is no name or no direction.
    """
    if not callable(function):
        raise ObjectiveError(f"an objective is made of a function f(view) -> float; got {function!r}")
    found_name = name or getattr(function, "__name__", "")
    found = direction or getattr(function, "direction", None)
    if not found_name or found_name == "<lambda>":
        raise ObjectiveError("an objective needs a name: kneepoint.objective(f, name='...', direction='minimize')")
    if found not in ("maximize", "minimize"):
        raise ObjectiveError(
            f"objective {found_name!r} needs a direction, 'maximize' or 'minimize'; got {found!r}: "
            f"wrap it as kneepoint.objective({found_name}, direction='minimize')"
        )
    return FunctionObjective(function, found_name, found, unit)
