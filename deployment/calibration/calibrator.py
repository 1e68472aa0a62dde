"""Measures this machine, and writes the device file that says what networks cost on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from kneepoint.deployment.calibration import hardware
from kneepoint.deployment.calibration.campaign import Campaign, Progress
from kneepoint.deployment.calibration.fitted_device import Machine, fitted_device, store
from kneepoint.deployment.calibration.probing import best_rules, probes
from kneepoint.deployment.calibration.samples import Sample, read_samples
from kneepoint.deployment.calibration.stopwatch import stopwatch
from kneepoint.deployment.machine import machine_name, usable_cores
from kneepoint.hardware_models.device import NAME, Device
from kneepoint.hardware_models.devices import THIS_MACHINE, user_folder
from kneepoint.tasks.errors import DeviceError

_VERSION = 2
"""Of the samples: those of another version are not gone on with."""
_LEAST_MINUTES = 0.2
_FEWEST_NETWORKS = 20


@dataclass(frozen=True)
class Calibrated:
    """What a calibration has written.

    Attributes:
        device: The device.
        path: Its file.
        held_out: By thread count, the errors on networks that nothing was fitted to.
        measured: What was timed, and where.
    """

    device: Device
    path: Path
    held_out: dict[str, dict[str, float]]
    measured: dict[str, Any]


def calibrate(
    name: str = THIS_MACHINE,
    minutes: float = 10.0,
    threads: Sequence[int] | None = None,
    seed: int = 0,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Calibrated:
    """Time random small networks through ONNX Runtime, fit a latency model, and write it as a device file.

    A calibration that was interrupted goes on where it stopped when it is asked for again with the same arguments.

    Args:
        name: Of the device; the file goes to the user's data folder, where every command finds it.
        minutes: To spend on timing; the fit takes up to a tenth more.
        threads: The thread counts to measure, of which the first is the device's own; by default one, and all cores.
        seed: Of the networks.
        report: Hears of every network that was timed.

    Raises:
        DeviceError: If the name, the time or a thread count is out of range.
    """
    counts = _checked(name, minutes, threads)
    file = samples_file(name)
    header = {"version": _VERSION, "machine": machine_name(), "seed": seed, "threads": list(counts)}
    rules = _fusion_rules(seed)
    campaign = Campaign(seed, counts, rules, minutes * 60, samples=_resumed(file, header))
    campaign.run(file, report)
    if len(campaign.samples) < _FEWEST_NETWORKS:
        raise DeviceError(
            f"{len(campaign.samples)} networks were timed, too few for a fit: give more --minutes, or stop what else "
            "keeps this machine busy"
        )
    calibrated = _store(name, campaign, rules)
    file.replace(file.with_suffix(".finished.jsonl"))
    return calibrated


def samples_file(name: str) -> Path:
    """Where the timed networks of a calibration that is under way are kept."""
    return user_folder() / f"{name}.samples.jsonl"


def _checked(name: str, minutes: float, threads: Sequence[int] | None) -> tuple[int, ...]:
    if not NAME.fullmatch(name):
        raise DeviceError(f"a device name has lower-case letters, digits, dots and hyphens; got {name!r}")
    if not minutes >= _LEAST_MINUTES:
        raise DeviceError(f"a calibration takes at least {_LEAST_MINUTES} minutes; got {minutes}")
    cores = len(usable_cores())
    counts = tuple(dict.fromkeys(threads or (1, cores)))
    if not all(1 <= count <= cores for count in counts):
        raise DeviceError(f"thread counts are between 1 and the {cores} cores of this machine; got {list(counts)}")
    return counts


def _resumed(file: Path, header: dict[str, Any]) -> list[Sample]:
    """The samples of a campaign with the same header, or none, and then the file is begun anew."""
    first = file.read_text(encoding="utf-8").partition("\n")[0] if file.is_file() else ""
    if first == json.dumps(header):
        return list(read_samples(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(header) + "\n", encoding="utf-8")
    return []


def _fusion_rules(seed: int) -> tuple[str, ...]:
    """The rules under which most kernels of some networks are those that the runtime executes here."""
    watch = stopwatch(1)
    timed = []
    for network, random in probes(seed):
        nodes = watch.time(network.model.SerializeToString(), network.feeds(random), seconds=0).nodes
        timed.append((network, nodes))
    return best_rules(timed)


def _store(name: str, campaign: Campaign, rules: Sequence[str]) -> Calibrated:
    progress = campaign.progress
    measured = {
        "machine": machine_name(),
        "seed": campaign.seed,
        "minutes": round(progress.seconds / 60, 2),
        "networks": progress.networks,
        "kernels": progress.kernels,
        "repeated": round(progress.repeated, 4),
    }
    bandwidth = hardware.main_memory_gb_s()
    machine = Machine(
        description=f"{machine_name()}; calibrated by timing {progress.networks} random small networks.",
        runtime_version=onnxruntime.__version__,
        memory_mb=hardware.main_memory_mb(),
        bandwidth_gb_s=bandwidth,
        caches=hardware.caches(bandwidth),
        saturates=hardware.saturates(),
    )
    fitted = fitted_device(name, campaign.samples, campaign.threads, rules, machine, measured)
    path = store(fitted.device)
    return Calibrated(fitted.device, path, fitted.held_out, measured)
