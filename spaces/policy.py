"""What one candidate is: a student architecture, kept fractions and bit-widths. A frozen, hashable, JSON-able value."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from kneepoint.tasks.errors import SpaceError

AxisValue = int | float | str
WEIGHT_BITS = (1, 2, 3, 4, 6, 8, 16, 32)
ACTIVATION_BITS = (8, 16, None)
INTEGER_ACTIVATIONS = 8
"""Bits of the activations that integer kernels work on."""
GROUP_SIZES = (0, 32, 64, 128)
SPARSITIES = ("dense", "2:4", "50%", "75%", "90%")
BLOCK = "block:"
"""What the name of a residual block begins with, among the names of channel groups."""
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class LayerPolicy:
    """How one layer computes.

    Attributes:
        weight_bits: One of ``WEIGHT_BITS``: 1 (sign and scale) to 8 are integers, 16 is float16, 32 is as it was.
        activation_bits: Of what the layer reads and writes: 8 for integer kernels, 16, or None for floats.
        dynamic: Whether the range of its input is taken from every batch instead of calibration data; with a
            ``group_size``, from every group of features of every row.
        group_size: Input features that share one scale; 0 for one scale an output channel.
        sparsity: ``dense``; ``2:4``, two zeros in every four weights; or the share of weights that are zero.

    Raises:
        SpaceError: If a value is not among those that exist, or two of them exclude each other.
    """

    weight_bits: int = 32
    activation_bits: int | None = None
    dynamic: bool = False
    group_size: int = 0
    sparsity: str = "dense"

    def __post_init__(self) -> None:
        _check_value("weight_bits", self.weight_bits, WEIGHT_BITS)
        _check_value("activation_bits", self.activation_bits, ACTIVATION_BITS)
        _check_value("dynamic", self.dynamic, (False, True))
        _check_value("group_size", self.group_size, GROUP_SIZES)
        _check_value("sparsity", self.sparsity, SPARSITIES)
        for rule, broken in (
            ("integer activations go with weights of 8 bits or fewer", self.activation_bits and not self.integer),
            ("dynamic ranges go with 8-bit activations", self.dynamic and self.activation_bits != INTEGER_ACTIVATIONS),
            ("scales of groups go with integer weights", self.group_size and not self.integer),
            ("scales of groups go with float activations, or dynamic ones", self.group_size and self.static),
            ("weights of one bit have no zero, and are dense", self.weight_bits == 1 and self.sparsity != "dense"),
        ):
            if broken:
                raise SpaceError(f"{rule}; got {self.name!r}")

    @classmethod
    def of_bits(cls, weight_bits: int) -> LayerPolicy:
        """The usual policy of a layer with these weight bits: integer kernels up to 8 bits, floats above."""
        integer = isinstance(weight_bits, int) and weight_bits <= INTEGER_ACTIVATIONS
        return cls(weight_bits, INTEGER_ACTIVATIONS if integer else None)

    @classmethod
    def parse(cls, name: str) -> LayerPolicy:
        """The policy of a :attr:`name` such as ``w4a8``, ``w8a8-dynamic``, ``w4-g32`` or ``w8a8-2:4``.

        Raises:
            SpaceError: If it is no such name.
        """
        found = _FORMAT.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            raise SpaceError(f"a format is a name like w4a8, w16, w8a8-dynamic, w4-g32 or w8a8-2:4; got {name!r}")
        weight, activation, dynamic, group, sparsity = found.groups()
        activation_bits = int(activation) if activation else None
        return cls(int(weight), activation_bits, bool(dynamic), int(group or 0), sparsity or "dense")

    @property
    def name(self) -> str:
        """``w4a8``: weights of 4 bits, activations of 8; ``-dynamic``, ``-g32`` and ``-2:4`` follow where they hold."""
        activation = f"a{self.activation_bits}" if self.activation_bits else ""
        group = f"-g{self.group_size}" if self.group_size else ""
        sparsity = f"-{self.sparsity}" if self.sparsity != "dense" else ""
        return f"w{self.weight_bits}{activation}{'-dynamic' if self.dynamic else ''}{group}{sparsity}"

    @property
    def integer(self) -> bool:
        """Whether the weights are held as integers."""
        return self.weight_bits <= 8

    @property
    def static(self) -> bool:
        """Whether what the layer reads is quantized with calibrated ranges."""
        return self.activation_bits is not None and not self.dynamic

    def to_json(self) -> dict[str, int | str | bool | None]:
        """The layer's entry in ``policy.layers``; what is rarely asked for is left out where it is not."""
        every: dict[str, int | str | bool | None] = {
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "dynamic": self.dynamic,
            "group_size": self.group_size,
            "sparsity": self.sparsity,
        }
        return {key: value for key, value in every.items() if key not in _DEFAULTS or value != _DEFAULTS[key]}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> LayerPolicy:
        """The layer policy written by :meth:`to_json`.

        Raises:
            SpaceError: If a key is missing or unknown, or a value out of range.
        """
        if unknown := set(entry) - {"weight_bits", "activation_bits", *_DEFAULTS}:
            raise SpaceError(
                f"a layer's policy has weight_bits, activation_bits and {sorted(_DEFAULTS)}; got {unknown}"
            )
        rest = {**_DEFAULTS, **entry}
        return _layer(entry["weight_bits"], entry["activation_bits"], *(rest[key] for key in _DEFAULTS))

    def __lt__(self, other: LayerPolicy) -> bool:
        """Fewer bits first; activations in floats after integers."""
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, int, bool, int, int]:
        activation = self.activation_bits or WEIGHT_BITS[-1]
        return (self.weight_bits, activation, self.dynamic, -self.group_size, -SPARSITIES.index(self.sparsity))


_DEFAULTS: Mapping[str, int | str | bool] = {"dynamic": False, "group_size": 0, "sparsity": "dense"}
_FORMAT = re.compile(r"w(\d+)(?:a(\d+))?(-dynamic)?(?:-g(\d+))?(?:-(2:4|\d+%))?")


def _check_value(name: str, value: object, known: tuple[object, ...]) -> None:
    if not any(type(value) is type(entry) and value == entry for entry in known):
        raise SpaceError(f"{name} is one of {known}; got {value!r}")


UNTOUCHED = LayerPolicy()
_SHARED = 2**16
"""Layers and formats that are remembered, so that every policy that has them refers to the same ones."""


@dataclass(frozen=True)
class Policy:
    """One point of a joint space.

    What is left at its default (a kept fraction of 1, an untouched layer) is not part of the value, so that two ways
    to write the same network are equal. Build one with :meth:`build`.

    Attributes:
        student: Sorted (axis, value) pairs of a student architecture; empty for the teacher's own.
        keep: Sorted (channel group, kept fraction) pairs, and (``block:NAME``, 0) for residual blocks left out.
        layers: Sorted (layer, how it computes) pairs.

    Raises:
        SpaceError: If a kept fraction or an axis value is out of range, or the pairs are not in canonical form.
    """

    student: tuple[tuple[str, AxisValue], ...] = ()
    keep: tuple[tuple[str, float], ...] = ()
    layers: tuple[tuple[str, LayerPolicy], ...] = ()

    def __post_init__(self) -> None:
        for name, pairs in (("student", self.student), ("keep", self.keep), ("layers", self.layers)):
            names = [pair[0] for pair in pairs]
            if any(type(entry) is not str for entry in names) or names != sorted(set(names)):
                raise SpaceError(f"{name} holds every name once, as a string, sorted; got {names!r}: use Policy.build")
        for axis, value in self.student:
            if not _is_axis_value(value):
                raise SpaceError(f"a student's axis takes a finite number or a string; got {value!r} for {axis!r}")
        for group, fraction in self.keep:
            if group.startswith(BLOCK):
                if not _is_number(fraction) or fraction != 0.0:
                    raise SpaceError(
                        f"a residual block is kept whole (1, left out) or not (0); got {fraction!r} for {group!r}"
                    )
            elif not _is_fraction(fraction) or fraction == 1.0:
                raise SpaceError(f"a kept fraction lies in (0, 1], and 1 is left out; got {fraction!r} for {group!r}")
        for name, layer in self.layers:
            if not isinstance(layer, LayerPolicy) or layer == UNTOUCHED:
                raise SpaceError(f"layers holds a LayerPolicy for every touched layer; got {layer!r} for {name!r}")

    @classmethod
    def build(
        cls,
        student: Literal["teacher"] | Mapping[str, AxisValue] = "teacher",
        keep: Mapping[str, float] | None = None,
        layers: Mapping[str, LayerPolicy] | None = None,
    ) -> Policy:
        """The policy of these choices, in canonical form.

        Raises:
            SpaceError: If a kept fraction is outside (0, 1], or a student is neither ``teacher`` nor axes with values.
        """
        axes: Mapping[str, AxisValue] = {}
        if isinstance(student, Mapping):
            axes = student
        elif student != "teacher":
            raise SpaceError(f"a student is 'teacher' or its axes with values; got {student!r}")
        kept = [(group, share) for group, share in (keep or {}).items() if not (_is_number(share) and share == 1.0)]
        touched = [
            _pair(name, layer) if isinstance(layer, LayerPolicy) else (name, layer)
            for name, layer in (layers or {}).items()
            if layer != UNTOUCHED
        ]
        return cls(
            _sorted(axes.items()),
            _sorted((group, float(share) if _is_number(share) else share) for group, share in kept),
            _sorted(touched),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """The policy written by :meth:`to_json`.

        Raises:
            SpaceError: If a key is missing, or a value out of range.
        """
        try:
            layers = {name: LayerPolicy.from_json(entry) for name, entry in data["layers"].items()}
            return cls.build(data["student"], dict(data["keep"]), layers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpaceError(f"a policy has the keys student, keep and layers; got {data!r}") from error

    def to_json(self) -> dict[str, Any]:
        """The policy as the run directory writes it."""
        return {
            "student": dict(self.student) if self.student else "teacher",
            "keep": dict(self.keep),
            "layers": {name: layer.to_json() for name, layer in self.layers},
        }

    @cached_property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON.

        Canonical JSON has sorted keys and no spaces, and writes the numbers of a student's axes as floats: 1 and 1.0
        are equal, and so are the policies.
        """
        axes = {axis: value if isinstance(value, str) else float(value) for axis, value in self.student}
        canonical = json.dumps({**self.to_json(), "student": axes or "teacher"}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @cached_property
    def keep_of(self) -> Mapping[str, float]:
        """Kept fraction by channel group; groups that are not here keep everything."""
        return {group: fraction for group, fraction in self.keep if not group.startswith(BLOCK)}

    @cached_property
    def dropped_blocks(self) -> frozenset[str]:
        """Names of the residual blocks that are left out, without their ``block:``."""
        return frozenset(group.removeprefix(BLOCK) for group, _ in self.keep if group.startswith(BLOCK))

    @cached_property
    def layer_of(self) -> Mapping[str, LayerPolicy]:
        """How each touched layer computes."""
        return dict(self.layers)

    def layer(self, name: str) -> LayerPolicy:
        """How the layer ``name`` computes."""
        return self.layer_of.get(name, UNTOUCHED)


@functools.lru_cache(maxsize=_SHARED)
def _pair(name: str, layer: LayerPolicy) -> tuple[str, LayerPolicy]:
    """The same object for the same layer and format: thousands of policies share a few of them."""
    return name, layer


@functools.lru_cache(maxsize=_SHARED, typed=True)
def _layer(weight_bits: Any, activation_bits: Any, dynamic: Any, group_size: Any, sparsity: Any) -> LayerPolicy:
    """The same object for the same format; what is no format is refused, and cannot be remembered."""
    return LayerPolicy(weight_bits, activation_bits, dynamic, group_size, sparsity)


def _sorted(pairs: Iterable[tuple[str, _Value]]) -> tuple[tuple[str, _Value], ...]:
    return tuple(sorted(pairs, key=lambda pair: str(pair[0])))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_fraction(value: object) -> bool:
    return _is_number(value) and isinstance(value, int | float) and 0.0 < value <= 1.0


def _is_axis_value(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))
