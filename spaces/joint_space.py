"""The joint space: student architecture, kept channels and residual blocks, and how every layer computes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

from kneepoint.spaces.derived_students import auto_family
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import BLOCK, WEIGHT_BITS, AxisValue, LayerPolicy, Policy
from kneepoint.spaces.students import StudentFamily, describe
from kneepoint.spaces.widths import CHANNEL_MULTIPLE
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.task import Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Choice = str | int
STUDENT = "student"
_BLOCK_CHOICES = (0.0, 1.0)
"""A residual block is left out, or stays."""
_T = TypeVar("_T")


class JointSpace:
    """Everything that may vary, as flat parameters that are the same in every trial.

    The parameters are ``student`` (a category), ``bits/LAYER``, ``keep/GROUP`` and, with ``blocks``,
    ``keep/block:NAME`` (indices into the sorted choices, so that a sampler sees their order; a block has the choices 0,
    left out, and 1). They are named after the teacher's layers, groups and blocks; those of a student take the choice
    of the teacher's of the same name, or of the one at the same relative depth.

    Attributes:
        teacher: The traced teacher.
        formats: Sorted choices a layer: how it computes.
        weight_bits: The same as they are written: weight bits, or a name where bits alone do not say it.
        keep: Sorted kept fractions a group.
        students: The family, or None for the teacher alone.
        blocks: Whether residual blocks may be left out.
        channel_multiple: What kept widths are rounded to a multiple of, where they are wide enough.
    """

    def __init__(
        self,
        task: Task,
        weight_bits: Sequence[int | str] = (2, 4, 8, 16),
        keep: Sequence[float] = (1.0, 0.75, 0.5, 0.25),
        students: Literal["auto"] | StudentFamily | None = "auto",
        blocks: bool = False,
        channel_multiple: int = CHANNEL_MULTIPLE,
    ) -> None:
        self.task = task
        self.formats = _formats(weight_bits)
        self.weight_bits = tuple(_written(choice) for choice in self.formats)
        self.keep = _fractions(keep)
        self.blocks = _flag("blocks", blocks)
        self.channel_multiple = channel_multiple
        self._derived = _is_auto(students)
        self.teacher = Network(task.model, task.example_input, channel_multiple)
        self.students = auto_family(self.teacher, task.model) if students == "auto" else students
        self._networks: dict[str, Network] = {}

    @cached_property
    def members(self) -> Mapping[str, Mapping[str, AxisValue]]:
        """Student axes by description; ``teacher`` maps to no axes."""
        members = self.students.members() if self.students else []
        return {"teacher": {}, **{describe(member): member for member in members}}

    def search_among(self, students: Collection[str]) -> None:
        """Let samplers choose among these members alone; policies may name the others all the same."""
        self.__dict__["members"] = {name: self.members[name] for name in self.members if name in students}
        self.__dict__.pop("distributions", None)

    @cached_property
    def choices(self) -> Mapping[str, int]:
        """How many choices every parameter has but the student, in the order of the network."""
        return {
            **{f"bits/{layer}": len(self.formats) for layer in self.teacher.layers},
            **{f"keep/{group}": len(self.keep) for group in self.teacher.groups},
            **{f"keep/{BLOCK}{block}": len(_BLOCK_CHOICES) for block in self._blocks},
        }

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Optuna's distribution of every parameter; Optuna is imported here, when somebody asks."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        return {
            STUDENT: CategoricalDistribution(tuple(self.members)),
            **{name: IntDistribution(0, count - 1) for name, count in self.choices.items()},
        }

    @property
    def size(self) -> float:
        """The number of parameter settings; infinity where no float holds it."""
        try:
            return float(len(self.members) * math.prod(self.choices.values()))
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
            self._networks[name] = Network(module, self.task.example_input, self.channel_multiple)
        return self._networks[name]

    def network_of(self, policy: Policy) -> Network:
        """The network that a policy prunes and quantizes: its student's, without the blocks it leaves out.

        Raises:
            SpaceError: If there is no such student or block.
        """
        return self.network(dict(policy.student)).without(policy.dropped_blocks)

    def policy(self, parameters: Mapping[str, Choice]) -> Policy:
        """The policy of one setting of the parameters; it does not mention what leaves with a residual block.

        A layer that cannot compute in the chosen format (an embedding has float activations) takes the nearest it can.

        Raises:
            SpaceError: If a parameter is missing or out of range.
        """
        try:
            student = self.members[str(parameters[STUDENT])]
            formats = {layer: _choice(self.formats, parameters[f"bits/{layer}"]) for layer in self.teacher.layers}
            keep = {group: _choice(self.keep, parameters[f"keep/{group}"]) for group in self.teacher.groups}
            blocks = {name: _choice(_BLOCK_CHOICES, parameters[f"keep/{BLOCK}{name}"]) for name in self._blocks}
        except (KeyError, ValueError) as error:
            raise SpaceError(f"not a point of this space: it has no {error}") from error
        whole = self.network(student)
        gone = [name for name, share in transfer(blocks, list(whole.blocks)).items() if not share]
        network = whole.without(gone)
        layers = transfer(formats, list(whole.layers))
        kept = transfer(keep, list(whole.groups))
        return Policy.build(
            student or "teacher",
            {group: kept[group] for group in network.groups} | {BLOCK + name: 0.0 for name in gone},
            {name: layer.admit(layers[name]) for name, layer in network.layers.items() if name in layers},
        )

    def uniform(self, student: str = "teacher", bits: int | str = 8, keep: float = 1.0) -> dict[str, Choice]:
        """The parameters of one architecture with the same format and kept fraction everywhere, and all its blocks.

        Raises:
            SpaceError: If the space does not offer the choice.
        """
        wanted = _format(bits)
        if student not in self.members or wanted not in self.formats or keep not in self.keep:
            raise SpaceError(
                f"the space has no ({student}, {bits}{' bits' if isinstance(bits, int) else ''}, keep {keep})"
            )
        return {
            STUDENT: student,
            **{f"bits/{layer}": self.formats.index(wanted) for layer in self.teacher.layers},
            **{f"keep/{group}": self.keep.index(keep) for group in self.teacher.groups},
            **{f"keep/{BLOCK}{block}": _BLOCK_CHOICES.index(1.0) for block in self._blocks},
        }

    @property
    def _blocks(self) -> Sequence[str]:
        """The residual blocks that have a parameter."""
        return list(self.teacher.blocks) if self.blocks else []

    def __getstate__(self) -> dict[str, object]:
        """Without the traces, which another process makes again: a graph module does not survive pickling."""
        state = dict(self.__dict__)
        for traced in ("teacher", "_networks", "choices", "distributions"):
            state.pop(traced, None)
        if self._derived:
            del state["students"]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.teacher = Network(self.task.model, self.task.example_input, self.channel_multiple)
        self._networks = {}
        if self._derived:
            self.students = auto_family(self.teacher, self.task.model)


def joint_space(
    task: Task,
    weight_bits: Sequence[int | str] = (2, 4, 8, 16),
    keep: Sequence[float] = (1.0, 0.75, 0.5, 0.25),
    students: Literal["auto"] | StudentFamily | None = "auto",
    blocks: bool = False,
    channel_multiple: int = CHANNEL_MULTIPLE,
) -> JointSpace:
    """The space of networks to search for ``task``.

    Args:
        task: Whose model is traced.
        weight_bits: Choices for every layer: bits of its weights (1, 2, 3, 4, 6 and 8 compute on integers where the
            layer can, 16 and 32 in floats), or names that say more: ``w4a16``, ``w8a8-dynamic``, ``w4-g32``,
            ``w8a8-2:4`` (:meth:`kneepoint.spaces.policy.LayerPolicy.parse`).
        keep: Choices for the share of channels every coupled group keeps.
        students: ``auto`` derives smaller networks from the teacher (:mod:`kneepoint.spaces.derived_students`); a
            :class:`StudentFamily` brings your own; None is the teacher alone.
        blocks: Whether whole residual blocks may be left out, too.
        channel_multiple: Kept widths are rounded to multiples of it in wide groups, to divisors of it in narrower
            ones (:mod:`kneepoint.spaces.widths`); 1 for no rounding.

    Raises:
        SpaceError: If a choice is out of range, or the model cannot be traced.
    """
    return JointSpace(task, weight_bits, keep, students, blocks, channel_multiple)


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


def _format(choice: int | str) -> LayerPolicy:
    return LayerPolicy.parse(choice) if isinstance(choice, str) else LayerPolicy.of_bits(choice)


def _written(policy: LayerPolicy) -> int | str:
    """Bits where they say it all, else the name."""
    return policy.weight_bits if policy == LayerPolicy.of_bits(policy.weight_bits) else policy.name


def _formats(values: Sequence[int | str]) -> tuple[LayerPolicy, ...]:
    listed = _listed(values)
    if not listed or not all(isinstance(value, str) or _is_bits(value) for value in listed):
        raise SpaceError(f"weight_bits is one or more of {list(WEIGHT_BITS)} or names such as 'w4a16'; got {values!r}")
    return tuple(sorted({_format(value) for value in listed}))


def _fractions(values: Sequence[float]) -> tuple[float, ...]:
    listed = _listed(values)
    if not listed or not all(_is_fraction(value) for value in listed):
        raise SpaceError(f"keep is one or more fractions in (0, 1]; got {values!r}")
    return tuple(sorted({float(value) for value in listed}))


def _flag(name: str, value: bool) -> bool:
    if type(value) is not bool:
        raise SpaceError(f"{name} is True or False; got {value!r}")
    return value


def _is_auto(students: object) -> bool:
    """Whether the family is to be derived from the teacher."""
    if students is not None and students != "auto" and not isinstance(students, StudentFamily):
        raise SpaceError(f"students is 'auto', a StudentFamily or None; got {students!r}")
    return students == "auto"


def _listed(values: Sequence[_T]) -> list[_T]:
    return list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []


def _is_bits(value: object) -> bool:
    return type(value) is int and value in WEIGHT_BITS


def _is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value <= 1.0
