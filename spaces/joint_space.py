"""The joint space: student architecture, kept fraction of every channel group, bit-width of every layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import WEIGHT_BITS, AxisValue, LayerPolicy, Policy
from kneepoint.spaces.students import StudentFamily, auto_family, describe
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.task import Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Choice = str | int
STUDENT = "student"
_T = TypeVar("_T")
_N = TypeVar("_N", int, float)


class JointSpace:
    """Everything that may vary, as flat parameters that are the same in every trial.

    The parameters are ``student`` (a category), ``bits/LAYER`` and ``keep/GROUP`` (indices into the sorted choices, so
    that a sampler sees their order). They are named after the teacher's layers and groups; a student's layer takes the
    choice of the teacher's layer of the same name, or of the one at the same relative depth.

    Attributes:
        teacher: The traced teacher.
        weight_bits: Sorted choices a layer.
        keep: Sorted kept fractions a group.
        students: The family, or None for the teacher alone.
    """

    def __init__(
        self,
        task: Task,
        weight_bits: Sequence[int] = (2, 4, 8, 16),
        keep: Sequence[float] = (1.0, 0.75, 0.5, 0.25),
        students: Literal["auto"] | StudentFamily | None = "auto",
    ) -> None:
        self.task = task
        self.weight_bits = _choices("weight_bits", weight_bits, set(WEIGHT_BITS))
        self.keep = tuple(float(share) for share in _choices("keep", keep, None))
        self.teacher = Network(task.model, task.example_input)
        self.students = auto_family(self.teacher) if students == "auto" else students
        self._networks: dict[str, Network] = {}

    @cached_property
    def members(self) -> Mapping[str, Mapping[str, AxisValue]]:
        """Student axes by description; ``teacher`` maps to no axes."""
        members = self.students.members() if self.students else []
        return {"teacher": {}, **{describe(member): member for member in members}}

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Optuna's distribution of every parameter; Optuna is imported here, when somebody asks."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        bits: BaseDistribution = IntDistribution(0, len(self.weight_bits) - 1)
        keep: BaseDistribution = IntDistribution(0, len(self.keep) - 1)
        return {
            STUDENT: CategoricalDistribution(tuple(self.members)),
            **{f"bits/{layer}": bits for layer in self.teacher.layers},
            **{f"keep/{group}": keep for group in self.teacher.groups},
        }

    @property
    def size(self) -> float:
        """The number of parameter settings; infinity where no float holds it."""
        layers, groups = len(self.teacher.layers), len(self.teacher.groups)
        try:
            return float(len(self.members) * len(self.weight_bits) ** layers * len(self.keep) ** groups)
        except OverflowError:
            return math.inf

    def network(self, student: Mapping[str, AxisValue]) -> Network:
        """The network of a student (untrained, until someone trains it); built and traced once."""
        if not student:
            return self.teacher
        name = describe(student)
        if self.students is None:
            raise SpaceError(f"the space has no students, and a policy names {name}")
        if name not in self._networks:
            module = self.students.make(student, seed=0)
            self._networks[name] = Network(module, self.task.example_input)
        return self._networks[name]

    def policy(self, parameters: Mapping[str, Choice]) -> Policy:
        """The policy of one setting of the parameters.

        Raises:
            SpaceError: If a parameter is missing or out of range.
        """
        try:
            student = self.members[str(parameters[STUDENT])]
            bits = {layer: _choice(self.weight_bits, parameters[f"bits/{layer}"]) for layer in self.teacher.layers}
            keep = {group: _choice(self.keep, parameters[f"keep/{group}"]) for group in self.teacher.groups}
        except (KeyError, ValueError) as error:
            raise SpaceError(f"not a point of this space: it has no {error}") from error
        network = self.network(student)
        layers = transfer(bits, list(network.layers))
        kept = transfer(keep, list(network.groups))
        return Policy.build(student or "teacher", kept, {name: LayerPolicy.of_bits(b) for name, b in layers.items()})

    def uniform(self, student: str = "teacher", bits: int = 8, keep: float = 1.0) -> dict[str, Choice]:
        """The parameters of one architecture with the same bits and kept fraction everywhere.

        Raises:
            SpaceError: If the space does not offer the choice.
        """
        if student not in self.members or bits not in self.weight_bits or keep not in self.keep:
            raise SpaceError(f"the space has no ({student}, {bits} bits, keep {keep})")
        return {
            STUDENT: student,
            **{f"bits/{layer}": self.weight_bits.index(bits) for layer in self.teacher.layers},
            **{f"keep/{group}": self.keep.index(keep) for group in self.teacher.groups},
        }

    def __getstate__(self) -> dict[str, object]:
        """Without the traces, which another process makes again: a graph module does not survive pickling."""
        state = dict(self.__dict__)
        for traced in ("teacher", "_networks", "distributions"):
            state.pop(traced, None)
        if self.students is not None and self.students.name == "auto":
            state["students"] = "auto"
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.teacher = Network(self.task.model, self.task.example_input)
        self._networks = {}
        if state["students"] == "auto":
            self.students = auto_family(self.teacher)


def joint_space(
    task: Task,
    weight_bits: Sequence[int] = (2, 4, 8, 16),
    keep: Sequence[float] = (1.0, 0.75, 0.5, 0.25),
    students: Literal["auto"] | StudentFamily | None = "auto",
) -> JointSpace:
    """The space of networks to search for ``task``.

    Args:
        task: Whose model is traced.
        weight_bits: Choices for every layer, out of 2, 4, 8, 16 and 32.
        keep: Choices for the share of channels every coupled group keeps.
        students: ``auto`` narrows the teacher; a :class:`StudentFamily` brings your own; None is the teacher alone.

    Raises:
        SpaceError: If a choice is out of range, or the model cannot be traced.
    """
    return JointSpace(task, weight_bits, keep, students)


def transfer(choices: Mapping[str, _T], names: Sequence[str]) -> dict[str, _T]:
    """Choices for ``names``: those of the same name, else of the same relative position."""
    values = list(choices.values())
    result = {}
    for index, name in enumerate(names):
        position = round(index * (len(values) - 1) / max(1, len(names) - 1)) if values else 0
        if name in choices:
            result[name] = choices[name]
        elif values:
            result[name] = values[position]
    return result


def _choice(choices: Sequence[_T], index: Choice) -> _T:
    if not isinstance(index, int) or not 0 <= index < len(choices):
        raise ValueError(f"choice {index!r} among the {len(choices)} {list(choices)}")
    return choices[index]


def _choices(name: str, values: Sequence[_N], known: set[int] | None) -> tuple[_N, ...]:
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    if not listed or not all(_valid(value, known) for value in listed):
        rule = f"one or more of {sorted(known)}" if known else "one or more fractions in (0, 1]"
        raise SpaceError(f"{name} is {rule}; got {values!r}")
    return tuple(sorted(set(listed)))


def _valid(value: object, known: set[int] | None) -> bool:
    if known is not None:
        return type(value) is int and value in known
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value <= 1.0
