"""A device: what a runtime on it executes, how fast, and where each number comes from. The schema of a device file."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kneepoint.hardware_models.calibrated import Calibration
from kneepoint.hardware_models.fusion import FusionRule
from kneepoint.hardware_models.kernel_classes import MULTIPLYING, KernelClass
from kneepoint.hardware_models.kernels import KERNEL_KINDS, KernelFormat
from kneepoint.hardware_models.operators import SPARSE_PATTERNS
from kneepoint.tasks.errors import DeviceError, nearest

NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
DEFAULT = "default"
SCALING_ERROR = 0.2
"""Relative error added by another thread count: the spread of published 4-thread over 1-thread ratios of one board."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rates = Mapping[str, Mapping[KernelFormat, Positive]]
"""Kernel kind (or ``default``) to format to a rate."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cache(_Frozen):
    """A level of cache.

    Attributes:
        kb: Working sets up to this many KiB are read from it.
        bandwidth_gb_s: 10^9 bytes a second.
    """

    kb: Positive
    bandwidth_gb_s: Positive


class Memory(_Frozen):
    """Main memory, and how the runtime asks for it.

    Attributes:
        limit_mb: 10^6 bytes.
        alignment: Every activation is rounded up to a multiple of so many bytes.
        region_kb: The least that the runtime's arena asks the system for at once, KiB; 0 where it has no arena.
        growth: Regions are ``region_kb`` times a power of this factor; 1 where they are as large as is asked for.
        replanned: Whether the second inference asks for one block for all activations at their peak, beside what the
            first one has asked for piece by piece.
        flash_mb: 10^6 bytes of a memory of their own that constants are read from where they lie; null where they are
            loaded, and share ``limit_mb`` with activations.
        integer_inputs: Whether a network of integers is handed integers, as a camera writes them, not floats.
    """

    limit_mb: Positive
    flash_mb: Positive | None = None
    alignment: Annotated[int, Field(ge=1)] = 1
    region_kb: NotNegative = 0
    growth: Annotated[int, Field(ge=1)] = 1
    replanned: bool = False
    integer_inputs: bool = False


class Power(_Frozen):
    """Watts of the whole device.

    Attributes:
        active_w: While it runs the network.
        idle_w: While it waits; null where unknown.
        by_format: Watts while it runs kernels of a format, where that makes a difference; ``active_w`` for others.
        relative_error: One standard error of watts, as a fraction; null where nobody has measured it.
    """

    active_w: Positive
    by_format: Mapping[KernelFormat, Positive] = Field(default_factory=dict)
    relative_error: Annotated[float, Field(gt=0, le=10)] | None = None
    idle_w: NotNegative | None = None


class ClassRate(_Frozen):
    """How fast kernels of one class run.

    Attributes:
        rate: 10^9 operations a second: multiply-accumulates, or elements of kernels that only move them.
        input: Operations that reading an element of an input costs beside them.
        output: The same of writing an element.
        weight: The same of a weight.
    """

    rate: Positive
    input: NotNegative = 0
    output: NotNegative = 0
    weight: NotNegative = 0


class RefinedRates(_Frozen):
    """Rates of classes of kernels in one format, fitted to published latencies.

    Attributes:
        launch_us: Microseconds that launching a kernel takes.
        classes: By class of kernels (``kneepoint.hardware_models.kernel_classes``).
        relative_error: One standard error of a predicted latency, as a fraction of it, on families of networks that
            nothing was fitted to.
    """

    launch_us: NotNegative
    classes: Mapping[KernelClass, ClassRate]
    relative_error: Annotated[float, Field(gt=0, le=10)]


class OnChipWeights(_Frozen):
    """A memory beside the arithmetic that weights stay in between inferences.

    Attributes:
        mb: 10^6 bytes; what does not fit is read again at every inference.
        stream_gb_s: 10^9 bytes a second at which it is.
    """

    mb: Positive
    stream_gb_s: Positive


class PublishedRows(_Frozen):
    """Which published latencies were measured on the device (``kneepoint.hardware_models.published``).

    Attributes:
        device: Identifier of the hardware there.
        runtime: What the name of the runtime there contains.
        threads: Null where the count was not published.
        floats: The precision of floats there, where more than one was published; null otherwise.
    """

    device: str
    runtime: str
    floats: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None


class SparseKernels(_Frozen):
    """What the runtime makes of a pattern of zeros in a weight.

    Attributes:
        speedup: Of the arithmetic, over the dense kernel.
        weight_bytes: The share of the dense weight's bytes that a kernel reads, indices included.
    """

    speedup: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    weight_bytes: Annotated[float, Field(gt=0, le=1)] = 1.0


class Device(_Frozen):
    """A device with its runtime, version, thread count and power mode: any other of these is another device.

    Attributes:
        name: Lower-case letters, digits, dots and hyphens.
        description: What it is, for people.
        runtime: What executes the network.
        runtime_version: Of the runtime, as far as the numbers depend on it.
        threads: Of one inference.
        power_mode: Clock governor or power profile the numbers hold for; null where it was not recorded.
        batch: Samples of one inference the numbers were derived at.
        formats: For every kernel kind (or ``default``) the formats its kernels compute with.
        fallbacks: The format that a kernel runs in where its own is not listed; that one may fall back, too.
        rates: 10^9 multiply-accumulates a second of convolutions, linear layers and matrix products.
        unpacking: 10^9 weights a second that a kernel of a packed format unpacks before it multiplies, at every
            inference; formats whose kernels unpack as they multiply have no entry.
        element_rates: 10^9 elements a second (of the larger of what is read and what is written) of every other kind.
        scalar_rate: 10^9 operations a second that unvectorized code reaches: bounds what has no rate.
        bandwidth_gb_s: 10^9 bytes a second from main memory.
        caches: Levels of cache, from the smallest and fastest; none where there is no cache.
        floor_us: Microseconds that launching a kernel takes, by kind or ``default``.
        network_floor_us: Microseconds of one inference apart from its kernels.
        fusion: Which fusion rules the runtime applies (``kneepoint.hardware_models.fusion``).
        sparsity: The patterns of zeros that kernels skip; any other is computed, read and stored like a dense weight.
        saturates: Whether sums of two products of unsigned and signed bytes saturate at 16 bits (x86 without VNNI).
        memory: Its limit, and the runtime's rules.
        power: Watts; null where unknown, and then no energy is predicted.
        link_mb_s: 10^6 bytes a second at which an artifact reaches the device; null where unknown.
        relative_error: One standard error of a predicted latency, as a fraction of it: of all kernels together.
        clock_mhz: Of the core, where it has one speed, as microcontrollers do; null elsewhere.
        machine: The hardware; files of one board with different runtimes share it. Null where the name says it.
        float_bytes: Of an element of what is computed in floats: 2 where the runtime computes networks of floats in
            half precision.
        refined: By format, rates of classes of kernels; they go before ``rates`` and ``element_rates``.
        on_chip_weights: A memory that weights stay in; null where they come from main memory.
        published: Latencies that others published of the device; null where there are none.
        per_channel_slowdown: What the latency of an integer kernel is multiplied by where its weight has a scale for
            each channel, and the accelerator takes one for all alone.
        thread_exponent: Rates grow as threads to this power; null where unknown, and then only ``threads`` is priced.
        calibration: What ``kneepoint devices calibrate`` has fitted; it goes before the rates where it has a price.
        sources: For every number above, the publication it comes from and how it was derived.
    """

    name: str
    description: str
    runtime: str
    runtime_version: str
    threads: Annotated[int, Field(ge=1)]
    power_mode: str | None = None
    batch: Annotated[int, Field(ge=1)] = 1
    formats: Mapping[str, tuple[KernelFormat, ...]]
    fallbacks: Mapping[KernelFormat, KernelFormat] = Field(default_factory=dict)
    rates: Rates
    unpacking: Mapping[KernelFormat, Positive] = Field(default_factory=dict)
    element_rates: Rates
    scalar_rate: Positive
    bandwidth_gb_s: Positive
    caches: tuple[Cache, ...] = ()
    floor_us: Mapping[str, NotNegative]
    network_floor_us: NotNegative
    fusion: tuple[FusionRule, ...]
    sparsity: Mapping[str, SparseKernels] = Field(default_factory=dict)
    saturates: bool | None = None
    memory: Memory
    power: Power | None = None
    link_mb_s: Positive | None = None
    relative_error: Annotated[float, Field(gt=0, le=10)]
    thread_exponent: Annotated[float, Field(ge=0, le=1)] | None = None
    clock_mhz: Positive | None = None
    machine: str | None = None
    float_bytes: Literal[2, 4] = 4
    refined: Mapping[KernelFormat, RefinedRates] = Field(default_factory=dict)
    on_chip_weights: OnChipWeights | None = None
    per_channel_slowdown: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    published: PublishedRows | None = None
    calibration: Calibration | None = None
    sources: Mapping[str, str]

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"a device name has lower-case letters, digits, dots and hyphens; got {name!r}")
        return name

    @field_validator("formats", "rates", "element_rates", "floor_us")
    @classmethod
    def _check_kinds(cls, table: Mapping[str, Any]) -> Mapping[str, Any]:
        for kind in table:
            if kind not in (*KERNEL_KINDS, DEFAULT):
                raise ValueError(f"unknown kernel kind {kind!r}; {nearest(kind, (*KERNEL_KINDS, DEFAULT))}")
        return table

    @field_validator("sparsity")
    @classmethod
    def _check_sparsity(cls, table: Mapping[str, SparseKernels]) -> Mapping[str, SparseKernels]:
        for pattern in table:
            if pattern not in SPARSE_PATTERNS:
                raise ValueError(f"unknown pattern of zeros {pattern!r}; {nearest(pattern, SPARSE_PATTERNS)}")
        return table

    @field_validator("fallbacks")
    @classmethod
    def _check_fallbacks(cls, table: Mapping[KernelFormat, KernelFormat]) -> Mapping[KernelFormat, KernelFormat]:
        for format_ in table:
            seen = [format_]
            while seen[-1] in table:
                seen.append(table[seen[-1]])
                if len(set(seen)) < len(seen):
                    raise ValueError(f"a fallback never leads back to itself; got {' to '.join(seen)}")
        return table

    @model_validator(mode="after")
    def _check_consistency(self) -> Device:
        levels = [(level.kb, level.bandwidth_gb_s) for level in self.caches]
        for (kb, fast), (next_kb, slow) in pairwise([*levels, (math.inf, self.bandwidth_gb_s)]):
            if kb >= next_kb or fast < slow:
                raise ValueError(
                    "caches grow, and are not faster than the one before (main memory comes last), or a larger network "
                    f"would cost less; got {fast} GB/s up to {kb} KiB before {slow} GB/s"
                )
        if self.calibration is not None and self.threads not in self.calibration.counts:
            raise ValueError(f"calibration.threads needs the device's own count, {self.threads}")
        for field, table in (("formats", self.formats), ("floor_us", self.floor_us)):
            if DEFAULT not in table:
                raise ValueError(f"{field} needs the key 'default', for kinds it does not list")
        if missing := sorted(name for name in _SOURCED - self.sources.keys() if _is_given(getattr(self, name))):
            raise ValueError(f"sources says where every number comes from; missing: {', '.join(missing)}")
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields: equal files, equal digests."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Device:
        """A copy with some fields replaced; what was derived from the others is derived again."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)
        return copied

    def at_threads(self, threads: int) -> Device:
        """The device with another thread count.

        A count that was calibrated is priced as it was measured. Any other takes the nearest: rates, calibrated ones
        too, are scaled by (threads / nearest count) ** thread_exponent, floors and bandwidths stay, and a further
        relative error of ``SCALING_ERROR`` is added.

        Raises:
            DeviceError: If the count is below 1, or the device does not say how its rates scale.
        """
        if threads == self.threads:
            return self
        if threads < 1:
            raise DeviceError(f"threads is at least 1; got {threads}")
        if self.calibration is not None and threads in self.calibration.counts:
            return self.model_copy(
                update={"threads": threads, **self._scaled_rates(threads, self.thread_exponent or 0)}
            )
        if self.thread_exponent is None:
            raise DeviceError(
                f"device {self.name!r} is described for {self._described()} thread(s) and does not say how it scales "
                f"to {threads}; ask for its own count, or add thread_exponent to its file"
            )
        error = math.hypot(self.relative_error, SCALING_ERROR)
        scaled = self._scaled_rates(threads, self.thread_exponent)
        return self.model_copy(update={"threads": threads, "relative_error": error, **scaled})

    def _scaled_rates(self, threads: int, exponent: float) -> dict[str, Any]:
        gain = (threads / self.threads) ** exponent
        unpacking = {name: rate * gain for name, rate in self.unpacking.items()}
        rates = {"rates": _scaled(self.rates, gain), "element_rates": _scaled(self.element_rates, gain)}
        refined = {name: _refined(entry, gain) for name, entry in self.refined.items()}
        return {**rates, "unpacking": unpacking, "refined": refined}

    def _described(self) -> str:
        counts = (self.threads, *(self.calibration.counts if self.calibration else ()))
        return " or ".join(map(str, sorted(set(counts))))

    @property
    def integer_gain(self) -> float | None:
        """How many times as fast dense convolutions multiply bytes as floats; None where one of them is unknown."""
        rates: dict[str, float] = {str(name): rate for name, rate in self.rates.get("conv", {}).items()}
        for name, entry in self.refined.items():
            if "pointwise" in entry.classes:
                rates[name] = entry.classes["pointwise"].rate
        return rates["int8"] / rates["fp32"] if {"int8", "fp32"} <= rates.keys() else None

    @property
    def macs_per_cycle(self) -> Mapping[KernelFormat, Mapping[KernelClass, float]]:
        """By format and class of kernels, at the refined rates, launches and elements apart; empty without a clock."""
        if self.clock_mhz is None:
            return {}
        cycles = self.clock_mhz / 1e3  # billions a second
        return {
            format_: {name: entry.classes[name].rate / cycles for name in MULTIPLYING if name in entry.classes}
            for format_, entry in self.refined.items()
        }

    def executes(self, kind: str, format_: KernelFormat) -> bool:
        """Whether kernels of ``kind`` compute in ``format_`` here, rather than in a fallback."""
        return format_ in self.formats.get(kind, self.formats[DEFAULT])

    def executed(self, kind: str, format_: KernelFormat) -> KernelFormat:
        """What kernels of ``kind`` really compute in where they are asked for ``format_``."""
        while not self.executes(kind, format_) and format_ in self.fallbacks:
            format_ = self.fallbacks[format_]
        return format_


_UNSOURCED = {
    "name", "description", "runtime", "runtime_version", "threads", "power_mode", "batch", "fallbacks", "calibration",
    "sources", "machine", "float_bytes", "published",
}  # fmt: skip
_SOURCED = frozenset(Device.model_fields) - _UNSOURCED


def _is_given(value: object) -> bool:
    """Whether a field says anything: what is unknown, or empty, needs no source."""
    return value is not None and value != {} and value != ()


def _refined(rates: RefinedRates, gain: float) -> RefinedRates:
    classes = {name: entry.model_copy(update={"rate": entry.rate * gain}) for name, entry in rates.classes.items()}
    return rates.model_copy(update={"classes": classes})


def _scaled(rates: Rates, gain: float) -> Rates:
    return {kind: {format_: rate * gain for format_, rate in table.items()} for kind, table in rates.items()}
