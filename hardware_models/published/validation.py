"""A device file against what others published of the device: predictions as they ship, and of families left out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.published.judging import Judgement, Pair, judge
from kneepoint.hardware_models.published.samples import Sample, samples
from kneepoint.hardware_models.published.systems import Precision, System
from kneepoint.hardware_models.workload import Workload
from kneepoint.hardware_models.zoo.registry import build
from kneepoint.tasks.errors import DeviceError

LEFT_OUT = Path(__file__).with_name("left_out.csv")
"""Predictions of families of networks by fits that saw nothing of them: ``benchmarks/published_devices.py``."""
LEFT_OUT_COLUMNS = ("device", "runtime", "threads", "precision", "network", "batch", "predicted_ms", "stated")
_Key = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, eq=False)
class Row:
    """A network on a device.

    Attributes:
        sample: With what was published.
        shipped: What the device file predicts of latency.
        left_out: What a fit predicts that saw nothing of the network's family; None where there is none.
        energy: Millijoules; None where no watts were published, or the file has none.
    """

    sample: Sample
    shipped: Pair
    left_out: Pair | None
    energy: Pair | None


@dataclass(frozen=True)
class Validation:
    """A device against published latencies.

    Attributes:
        device: Its name.
        rows: All of them, bad ones included.
    """

    device: str
    rows: tuple[Row, ...]

    def judgements(self) -> Mapping[tuple[Precision, str], Judgement]:
        """By precision, and by what predicts: ``shipped``, ``left out`` or ``energy``."""
        found: dict[tuple[Precision, str], Judgement] = {}
        for precision in ("fp32", "int8"):
            of = [row for row in self.rows if row.sample.system.precision == precision]
            pairs = {
                "shipped": [row.shipped for row in of],
                "left out": [row.left_out for row in of if row.left_out is not None],
                "energy": [row.energy for row in of if row.energy is not None],
            }
            found.update({(precision, what): judge(entries) for what, entries in pairs.items() if entries})
        return found

    def to_json(self) -> dict[str, Any]:
        """The facts as ``kneepoint devices validate --json`` prints them."""
        judged = [
            {"precision": precision, "predictions": what, **found.to_json()}
            for (precision, what), found in self.judgements().items()
        ]
        return {"device": self.device, "judgements": judged, "rows": [_facts(row) for row in self.rows]}


def validate(device: Device) -> Validation:
    """Predictions for every published latency of ``device`` whose network the zoo has.

    Raises:
        DeviceError: If the file does not say which latencies were published of the device, or if there are none.
    """
    if device.published is None:
        raise DeviceError(
            f"device {device.name!r} names no published latencies, so there is nothing to compare with; add "
            "'published' to its file, or measure it with 'kneepoint devices bundle'"
        )
    found = [sample for system in systems_of(device) for sample in samples()[system]]
    if not found:
        raise DeviceError(f"no published latency is of {device.published}; look at hardware_models/published")
    model = CostModel(device)
    return Validation(device.name, tuple(_row(sample, model) for sample in found))


def systems_of(device: Device) -> tuple[System, ...]:
    """The systems that a device file describes: one for each precision it was measured in."""
    rows = device.published
    if rows is None:
        return ()
    return tuple(
        system
        for system in samples()
        if (system.device, system.threads) == (rows.device, rows.threads) and rows.runtime in system.runtime
        if rows.floats is None or system.precision != "fp32" or system.published_precision == rows.floats
    )


def _row(sample: Sample, model: CostModel) -> Row:
    system = sample.system
    table = build(sample.network, sample.batch, norms=system.keeps_norms, precision=system.precision)
    cost = model.cost(Workload.of(table, model.device.fusion))
    shipped = Pair(sample.latency_ms, cost.latency_ms, cost.latency_ms_error / cost.latency_ms)
    energy = None
    if sample.power_w is not None and cost.energy_mj is not None:
        energy = Pair(sample.power_w * sample.latency_ms, cost.energy_mj)
    return Row(sample, shipped, _left_out().get(key_of(sample)), energy)


@cache
def _left_out() -> Mapping[_Key, Pair]:
    if not LEFT_OUT.is_file():
        return {}
    published = {key_of(sample): sample.latency_ms for entries in samples().values() for sample in entries}
    with LEFT_OUT.open(newline="") as file:
        rows = {_key(row): row for row in csv.DictReader(file)}
    return {
        key: Pair(published[key], float(row["predicted_ms"]), float(row["stated"]))
        for key, row in rows.items()
        if key in published
    }


def _key(row: Mapping[str, str]) -> _Key:
    return (row["device"], row["runtime"], row["threads"], row["precision"], row["network"], row["batch"])


def key_of(sample: Sample) -> _Key:
    """What a line of ``left_out.csv`` begins with."""
    system = sample.system
    threads = "" if system.threads is None else str(system.threads)
    return (system.device, system.runtime, threads, system.published_precision, sample.network, str(sample.batch))


def _facts(row: Row) -> dict[str, Any]:
    sample = row.sample
    pairs: Sequence[tuple[str, Pair | None]] = (("left_out", row.left_out), ("energy", row.energy))
    return {
        "network": sample.network,
        "family": sample.family,
        "precision": sample.system.published_precision,
        "batch": sample.batch,
        "published_ms": sample.latency_ms,
        "predicted_ms": row.shipped.predicted,
        "error": row.shipped.error,
        "stated_error": row.shipped.stated,
        **{f"{name}_error": pair.error if pair is not None else None for name, pair in pairs},
    }
