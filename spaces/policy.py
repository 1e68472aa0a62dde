"""What one candidate is: a student architecture, kept fractions and bit-widths. A frozen, hashable, JSON-able value."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from kneepoint.tasks.errors import SpaceError

AxisValue = int | float | str
WEIGHT_BITS = (2, 4, 8, 16, 32)
"""Bits a weight can be stored with; 16 is a float16 and 32 the untouched float."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, order=True)
class LayerPolicy:
    """How one layer computes.

    Attributes:
        weight_bits: One of ``WEIGHT_BITS``.
        activation_bits: 8 for integer kernels, None for float activations.

    Raises:
        SpaceError: If the bits are not among those that exist, or integer activations meet float weights.
    """

    weight_bits: int = 32
    activation_bits: int | None = None

    def __post_init__(self) -> None:
        if type(self.weight_bits) is not int or self.weight_bits not in WEIGHT_BITS:
            raise SpaceError(f"weight_bits is one of {WEIGHT_BITS}; got {self.weight_bits!r}")
        if self.activation_bits is not None and (type(self.activation_bits) is not int or self.activation_bits != 8):
            raise SpaceError(f"activation_bits is 8 or null; got {self.activation_bits!r}")
        if self.integer != (self.activation_bits == 8):
            raise SpaceError(
                "weights of 8 bits or fewer go with 8-bit activations and wider ones with float activations (null); "
                f"got weight_bits={self.weight_bits}, activation_bits={self.activation_bits}"
            )

    @classmethod
    def of_bits(cls, weight_bits: int) -> LayerPolicy:
        """The policy of a layer with these weight bits and the activations that go with them."""
        return cls(weight_bits, 8 if weight_bits <= 8 else None)

    @property
    def integer(self) -> bool:
        """Whether the layer computes in integers."""
        return self.weight_bits <= 8

    def to_json(self) -> dict[str, int | None]:
        """The layer's entry in ``policy.layers``."""
        return {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits}


UNTOUCHED = LayerPolicy()


@dataclass(frozen=True)
class Policy:
    """One point of a joint space.

    What is left at its default (a kept fraction of 1, an untouched layer) is not part of the value, so that two ways
    to write the same network are equal. Build one with :meth:`build`.

    Attributes:
        student: Sorted (axis, value) pairs of a student architecture; empty for the teacher's own.
        keep: Sorted (channel group, kept fraction) pairs.
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
            if not _is_fraction(fraction) or fraction == 1.0:
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
        touched = [(name, layer) for name, layer in (layers or {}).items() if layer != UNTOUCHED]
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
            layers = {
                name: LayerPolicy(entry["weight_bits"], entry["activation_bits"])
                for name, entry in data["layers"].items()
            }
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
        """Kept fraction by group; groups that are not here keep everything."""
        return dict(self.keep)

    @cached_property
    def layer_of(self) -> Mapping[str, LayerPolicy]:
        """How each touched layer computes."""
        return dict(self.layers)

    def layer(self, name: str) -> LayerPolicy:
        """How the layer ``name`` computes."""
        return self.layer_of.get(name, UNTOUCHED)


def _sorted(pairs: Iterable[tuple[str, _Value]]) -> tuple[tuple[str, _Value], ...]:
    return tuple(sorted(pairs, key=lambda pair: str(pair[0])))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_fraction(value: object) -> bool:
    return _is_number(value) and isinstance(value, int | float) and 0.0 < value <= 1.0


def _is_axis_value(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))
