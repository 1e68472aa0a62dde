"""Measures this machine, and writes the device file that says what networks cost on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import yaml

from kneepoint.deployment.calibration import hardware
from kneepoint.deployment.calibration.campaign import Campaign, Progress
from kneepoint.deployment.calibration.executed import pair
from kneepoint.deployment.calibration.fitting import fit
from kneepoint.deployment.calibration.judging import judge, with_errors
from kneepoint.deployment.calibration.micro_networks import draw
from kneepoint.deployment.calibration.rates import floors_us, peak_rates, thread_exponent
from kneepoint.deployment.calibration.samples import Sample, SampleTable, read_samples
from kneepoint.deployment.calibration.stopwatch import Stopwatch
from kneepoint.deployment.machine import machine_name, usable_cores
from kneepoint.hardware_models.device import NAME, Device
from kneepoint.hardware_models.devices import THIS_MACHINE, user_folder
from kneepoint.hardware_models.fusion import FUSION_RULES, fuse
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.tasks.errors import DeviceError

_VERSION = 2
"""Of the samples: those of another version are not gone on with."""
_RULE_SETS: tuple[tuple[str, ...], ...] = (tuple(FUSION_RULES), ("activation", "residual"), ("activation",))
_RULE_NETWORKS = 12
_LEAST_MINUTES = 0.2
_FEWEST_NETWORKS = 20
_OPERATIONS_AN_ASSUMED_SECOND = 0.2
_MEASURED = "Measured here, by 'kneepoint devices calibrate' through ONNX Runtime: "


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
    calibrated = _write(name, campaign, rules)
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
    found = dict.fromkeys(_RULE_SETS, 0)
    stopwatch = Stopwatch(1)
    for index in range(_RULE_NETWORKS):
        random = np.random.default_rng([seed, index, _POOL_OF_RULES])
        network = draw(random)
        nodes = stopwatch.time(network.model.SerializeToString(), network.feeds(random), seconds=0).nodes
        table = read_onnx(network.model, batch=network.batch)
        for rules in _RULE_SETS:
            found[rules] += len(pair(fuse(table, rules), nodes))
    return max(found, key=lambda rules: found[rules])


_POOL_OF_RULES = 99
"""Keeps these networks apart from those of the campaign."""


def _write(name: str, campaign: Campaign, rules: Sequence[str]) -> Calibrated:
    models, held_out = {}, {}
    for count in campaign.threads:
        judges = campaign.table(count, held_out=True)
        fitted = fit(campaign.table(count, held_out=False))
        models[str(count)] = with_errors(fitted, judges)
        held_out[str(count)] = judge(fitted, judges).to_json()
    progress = campaign.progress
    measured = {
        "machine": machine_name(),
        "seed": campaign.seed,
        "minutes": round(progress.seconds / 60, 2),
        "networks": progress.networks,
        "kernels": progress.kernels,
        "repeated": round(progress.repeated, 4),
    }
    first = models[str(campaign.threads[0])]
    content = {
        "name": name,
        "description": f"{machine_name()}; calibrated by timing {progress.networks} random small networks.",
        "runtime": "onnxruntime",
        "runtime_version": onnxruntime.__version__,
        "threads": campaign.threads[0],
        **_rates(campaign),
        **_machine(),
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
    device = Device.model_validate(content)
    path = user_folder() / f"{name}.yaml"
    _write_whole(path, yaml.safe_dump(content, sort_keys=False, width=2**30))
    return Calibrated(device, path, held_out, measured)


def _rates(campaign: Campaign) -> dict[str, Any]:
    """The roofline that prices what no fit knows, read off the samples."""
    table = SampleTable.of([s for s in campaign.samples if s.threads == campaign.threads[0]])
    formats = sorted({kernel.row[1] for sample in campaign.samples for kernel in sample.kernels})
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
        "thread_exponent": thread_exponent(campaign.samples, campaign.threads),
    }


def _machine() -> dict[str, Any]:
    bandwidth = hardware.main_memory_gb_s()
    return {
        "scalar_rate": _OPERATIONS_AN_ASSUMED_SECOND,
        "bandwidth_gb_s": round(bandwidth, 2),
        "caches": [
            {"kb": level.kb, "bandwidth_gb_s": round(level.bandwidth_gb_s, 2)} for level in hardware.caches(bandwidth)
        ],
        "saturates": hardware.saturates(),
        "memory": {
            "limit_mb": round(hardware.main_memory_mb()),
            "alignment": 256,
            "region_kb": 1024,
            "growth": 2,
            "replanned": True,
        },
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
        "fusion": "The rules under which most kernels of twelve networks are those that the runtime executes here.",
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
