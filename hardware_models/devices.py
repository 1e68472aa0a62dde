"""Device files: what a runtime on a device executes, how fast, and where each number comes from."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kneepoint.hardware_models.fusion import FusionRule
from kneepoint.hardware_models.kernels import KERNEL_KINDS, KernelFormat
from kneepoint.hardware_models.operators import SPARSE_PATTERNS
from kneepoint.tasks.errors import DeviceError, nearest

SHIPPED = Path(__file__).parent / "device_files"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
THIS_MACHINE = "this-machine"
DEFAULT = "default"
SCALING_ERROR = 0.2
"""Relative error added by another thread count: the spread of published 4-thread over 1-thread ratios of one board."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rates = Mapping[str, Mapping[KernelFormat, Positive]]
"""Kernel kind (or ``default``) to format to a rate."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Power(_Frozen):
    """Watts of the whole device.

    Attributes:
        active_w: While it runs the network.
        idle_w: While it waits; null where unknown.
    """

    active_w: Positive
    idle_w: NotNegative | None = None


class SparseKernels(_Frozen):
    """What the runtime makes of a pattern of zeros in a weight.

    Attributes:
        speedup: Of the arithmetic, over the dense kernel.
        weight_bytes: The share of the dense weight's bytes that a kernel reads, indices included.
    """

    speedup: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    weight_bytes: Annotated[float, Field(gt=0, le=1)] = 1.0


class Device(_Frozen):
    """A device with its runtime, version and thread count: any other of these is another device.

    Attributes:
        name: Lower-case letters, digits, dots and hyphens.
        description: What it is, for people.
        runtime: What executes the network.
        runtime_version: Of the runtime, as far as the numbers depend on it.
        threads: Of one inference.
        batch: Samples of one inference the numbers were derived at.
        formats: For every kernel kind (or ``default``) the formats its kernels compute with.
        fallback: The format a kernel runs in where its own is not listed.
        rates: 10^9 multiply-accumulates a second of convolutions, linear layers and matrix products.
        element_rates: 10^9 elements a second (of the larger of what is read and what is written) of every other kind.
        scalar_rate: 10^9 operations a second that unvectorized code reaches: bounds what has no rate.
        bandwidth_gb_s: 10^9 bytes a second from main memory.
        cache_kb: Working sets up to this many KiB are read from cache.
        cache_bandwidth_gb_s: 10^9 bytes a second from that cache; not below ``bandwidth_gb_s``.
        floor_us: Microseconds that launching a kernel takes, by kind or ``default``.
        network_floor_us: Microseconds of one inference apart from its kernels.
        fusion: Which fusion rules the runtime applies (``kneepoint.hardware_models.fusion``).
        sparsity: The patterns of zeros that kernels skip; any other is computed, read and stored like a dense weight.
        memory_mb: Main memory, 10^6 bytes.
        power: Watts; null where unknown, and then no energy is predicted.
        relative_error: One standard error of a predicted latency, as a fraction of it.
        thread_exponent: Rates grow as threads to this power; null where unknown, and then only ``threads`` is priced.
        sources: For every number above, the publication it comes from and how it was derived.
    """

    name: str
    description: str
    runtime: str
    runtime_version: str
    threads: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 1
    formats: Mapping[str, tuple[KernelFormat, ...]]
    fallback: KernelFormat = "fp32"
    rates: Rates
    element_rates: Rates
    scalar_rate: Positive
    bandwidth_gb_s: Positive
    cache_kb: NotNegative
    cache_bandwidth_gb_s: Positive
    floor_us: Mapping[str, NotNegative]
    network_floor_us: NotNegative
    fusion: tuple[FusionRule, ...]
    sparsity: Mapping[str, SparseKernels] = Field(default_factory=dict)
    memory_mb: Positive
    power: Power | None = None
    relative_error: Annotated[float, Field(gt=0, le=10)]
    thread_exponent: Annotated[float, Field(ge=0, le=1)] | None = None
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

    @model_validator(mode="after")
    def _check_consistency(self) -> Device:
        if self.cache_bandwidth_gb_s < self.bandwidth_gb_s:
            raise ValueError("cache_bandwidth_gb_s is not below bandwidth_gb_s, or a larger network would cost less")
        for field, table in (("formats", self.formats), ("floor_us", self.floor_us)):
            if DEFAULT not in table:
                raise ValueError(f"{field} needs the key 'default', for kinds it does not list")
        unknown = {name for name in ("power", "thread_exponent") if getattr(self, name) is None}
        declared = {"sparsity"} if self.sparsity else set()
        if missing := (_SOURCED | declared) - self.sources.keys() - unknown:
            raise ValueError(f"sources says where every number comes from; missing: {', '.join(sorted(missing))}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields: equal files, equal digests."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def at_threads(self, threads: int) -> Device:
        """The device with another thread count: rates scaled by (threads / own threads) ** thread_exponent.

        Floors and bandwidths stay, and a further relative error of ``SCALING_ERROR`` is added.

        Raises:
            DeviceError: If the count is below 1, or the device does not say how its rates scale.
        """
        if threads == self.threads:
            return self
        if threads < 1:
            raise DeviceError(f"threads is at least 1; got {threads}")
        if self.thread_exponent is None:
            raise DeviceError(
                f"device {self.name!r} is described for {self.threads} thread(s) and does not say how it scales to "
                f"{threads}; ask for its own count, or add thread_exponent to its file"
            )
        gain = (threads / self.threads) ** self.thread_exponent
        return self.model_copy(
            update={
                "threads": threads,
                "rates": _scaled(self.rates, gain),
                "element_rates": _scaled(self.element_rates, gain),
                "relative_error": math.hypot(self.relative_error, SCALING_ERROR),
            }
        )

    def executes(self, kind: str, format_: KernelFormat) -> bool:
        """Whether kernels of ``kind`` compute in ``format_`` here, rather than in the fallback."""
        return format_ in self.formats.get(kind, self.formats[DEFAULT])


_SOURCED = frozenset(
    {
        "formats",
        "rates",
        "element_rates",
        "scalar_rate",
        "bandwidth_gb_s",
        "cache_kb",
        "cache_bandwidth_gb_s",
        "floor_us",
        "network_floor_us",
        "fusion",
        "memory_mb",
        "power",
        "relative_error",
        "thread_exponent",
    }
)


def _scaled(rates: Rates, gain: float) -> Rates:
    return {kind: {format_: rate * gain for format_, rate in table.items()} for kind, table in rates.items()}


def load_device(name_or_path: str | Path) -> Device:
    """The device of that name, or in that file.

    Args:
        name_or_path: A name that ships or that the user's data folder holds, or a path that ends in ``.yaml``.

    Raises:
        DeviceError: If there is no such device, or if its file is malformed.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        return _read(Path(text))
    if not NAME.fullmatch(text):
        raise DeviceError(
            "a device is a name of lower-case letters, digits, dots and hyphens, or a path ending in .yaml; "
            f"got {text!r}"
        )
    for folder in (user_folder(), SHIPPED):
        if (path := folder / f"{text}.yaml").is_file():
            return _read(path, expected=text)
    if text == THIS_MACHINE:
        raise DeviceError(
            "no device file describes this machine yet. 'kneepoint devices calibrate' is what will write it; that "
            "command is not available in this version: pass the path of a device file (.yaml) instead"
        )
    raise DeviceError(f"unknown device {text!r}; {nearest(text, list_devices())}; or pass the path of a .yaml file")


def list_devices() -> tuple[str, ...]:
    """Names of every device that ships or that the user's data folder holds."""
    found = {path.stem for folder in (SHIPPED, user_folder()) if folder.is_dir() for path in folder.glob("*.yaml")}
    return tuple(sorted(name for name in found if NAME.fullmatch(name)))


def user_folder() -> Path:
    """Where the user's own device files are looked for, before those that ship."""
    return platformdirs.user_data_path("kneepoint") / "devices"


def _read(path: Path, expected: str | None = None) -> Device:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeviceError(f"cannot read device file {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DeviceError(f"device file {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise DeviceError(f"device file {path} holds a mapping of fields; got {type(content).__name__}")
    try:
        device = Device.model_validate(content)
    except ValidationError as error:
        raise DeviceError(f"device file {path}: {_explain(error)}") from error
    if expected is not None and device.name != expected:
        raise DeviceError(f"device file {path} is named after its device; it says name: {device.name}")
    return device


def _explain(error: ValidationError) -> str:
    """Each problem on one line: the key, what is wrong with it and the nearest known key."""
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown key {key!r}, {nearest(key, Device.model_fields)}")
        else:
            problems.append(f"{key}: {problem['msg']}" if key else problem["msg"])
    return "; ".join(problems)
