"""From timed networks to a device file, wherever they were timed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kneepoint.deployment.calibration.fitting import fit
from kneepoint.deployment.calibration.judging import judge, with_errors
from kneepoint.deployment.calibration.rates import floors_us, peak_rates, thread_exponent
from kneepoint.deployment.calibration.samples import Sample, SampleTable
from kneepoint.hardware_models.device import Cache, Device
from kneepoint.hardware_models.devices import user_folder

_OPERATIONS_AN_ASSUMED_SECOND = 0.2
_MEASURED = "Measured on the device, by timing random small networks through ONNX Runtime: "


@dataclass(frozen=True)
class Machine:
    """What kernels do not show.

    Attributes:
        description: For people.
        runtime_version: Of ONNX Runtime.
        memory_mb: Physical memory, 10^6 bytes.
        bandwidth_gb_s: Of one thread copying within main memory.
        caches: Levels of cache.
        saturates: Whether sums of two products of bytes saturate; None where that is not known.
    """

    description: str
    runtime_version: str
    memory_mb: float
    bandwidth_gb_s: float
    caches: tuple[Cache, ...]
    saturates: bool | None

    def content(self) -> dict[str, Any]:
        """The fields of a device file."""
        return {
            "description": self.description,
            "runtime": "onnxruntime",
            "runtime_version": self.runtime_version,
            "scalar_rate": _OPERATIONS_AN_ASSUMED_SECOND,
            "bandwidth_gb_s": round(self.bandwidth_gb_s, 2),
            "caches": [{"kb": level.kb, "bandwidth_gb_s": round(level.bandwidth_gb_s, 2)} for level in self.caches],
            "saturates": self.saturates,
            "memory": memory_content(self.memory_mb),
        }


def memory_content(memory_mb: float) -> dict[str, Any]:
    """The field ``memory``: ONNX Runtime's rules for its arena."""
    return {"limit_mb": round(memory_mb), "alignment": 256, "region_kb": 1024, "growth": 2, "replanned": True}


@dataclass(frozen=True)
class FittedDevice:
    """What was fitted.

    Attributes:
        device: The device.
        held_out: By thread count, the errors on networks that nothing was fitted to.
    """

    device: Device
    held_out: dict[str, dict[str, float]]


def fitted_device(
    name: str,
    samples: Sequence[Sample],
    threads: Sequence[int],
    rules: Sequence[str],
    machine: Machine,
    measured: dict[str, Any],
) -> FittedDevice:
    """A latency model for every thread count, in a device with the rates that price what the models do not know.

    Args:
        name: Of the device.
        samples: Timed networks.
        threads: The thread counts they were timed at, of which the first is the device's own.
        rules: The fusion rules of the runtime there.
        machine: What kernels do not show.
        measured: Goes into the file as it is: what was timed, and where.
    """
    models, held_out = {}, {}
    for count in threads:
        fitted = fit(_table(samples, count, held_out=False))
        judges = _table(samples, count, held_out=True)
        models[str(count)] = with_errors(fitted, judges)
        held_out[str(count)] = judge(fitted, judges).to_json()
    first = models[str(threads[0])]
    content = {
        "name": name,
        **machine.content(),
        "threads": threads[0],
        **_rates(samples, threads),
        "network_floor_us": round(first.network_floor_us, 3),
        "fusion": list(rules),
        "relative_error": first.common_error,
        "calibration": {
            "threads": {count: model.to_json() for count, model in models.items()},
            "held_out": held_out,
            "measured": measured,
        },
        "sources": _sources(),
    }
    return FittedDevice(Device.model_validate(content), held_out)


def store(device: Device) -> Path:
    """Write a device's file to the user's data folder, where every command finds it."""
    content = {key: value for key, value in device.model_dump(mode="json").items() if value is not None}
    path = user_folder() / f"{device.name}.yaml"
    _write_whole(path, yaml.safe_dump(content, sort_keys=False, width=2**30))
    return path


def _table(samples: Sequence[Sample], threads: int, *, held_out: bool) -> SampleTable:
    return SampleTable.of([s for s in samples if s.threads == threads and s.held_out is held_out])


def _rates(samples: Sequence[Sample], threads: Sequence[int]) -> dict[str, Any]:
    """The roofline that prices what no fit knows, read off the samples."""
    table = SampleTable.of([s for s in samples if s.threads == threads[0]])
    formats = sorted({kernel.row[1] for sample in samples for kernel in sample.kernels})
    return {
        "formats": {"default": formats},
        "fallbacks": {
            "int8": "fp32",
            "dynamic": "int8",
            "packed2": "packed4",
            "packed4": "fp32",
            "packed8": "fp32",
            "dynamic2": "dynamic4",
            "dynamic4": "dynamic",
            "dynamic8": "dynamic",
        },
        **peak_rates(table),
        "floor_us": floors_us(table),
        "thread_exponent": thread_exponent(samples, threads),
    }


def _sources() -> dict[str, str]:
    return {
        "formats": f"{_MEASURED}those of the kernels that ran.",
        "rates": f"{_MEASURED}the 90th percentile over a kind's kernels. Only what no fit knows is priced so.",
        "element_rates": f"{_MEASURED}the 90th percentile over the timed kernels of a kind, or of all kinds.",
        "scalar_rate": "Assumed, one operation in about ten cycles; it bounds what has no rate from above.",
        "bandwidth_gb_s": f"{_MEASURED}one thread copying 128 MiB, what it reads and what it writes.",
        "caches": "Sizes as the system reports them; rates measured by one thread copying within half of each.",
        "floor_us": f"{_MEASURED}the 5th percentile of a kernel's time.",
        "network_floor_us": f"{_MEASURED}what whole networks take beside their kernels.",
        "fusion": "The rules under which most kernels of twelve networks are those that the runtime executes there.",
        "saturates": "The instructions that the processor reports: sums saturate on x86 without VNNI.",
        "memory": "Physical memory; ONNX Runtime's rules for its arena.",
        "relative_error": f"{_MEASURED}the spread of the errors on networks that nothing was fitted to.",
        "thread_exponent": f"{_MEASURED}the median gain of networks that were timed at both thread counts.",
    }


def _write_whole(path: Path, text: str) -> None:
    """All of it or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
