"""Device files from published latencies: fits them, judges them on families of networks left out, and writes both.

    python -m benchmarks.published_devices            # everything, a few minutes
    python -m benchmarks.published_devices --page     # the page and the pictures alone

The hand-written part of each device file is in ``benchmarks/device_specs.yaml``. What is fitted goes into
``hardware_models/device_files``, predictions of families left out into ``hardware_models/published/left_out.csv``, and
``docs/published_devices.md`` compares everything with what was published.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from benchmarks.published_devices_page import write_page
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.published.device_rates import inference_us, refined_rates
from kneepoint.hardware_models.published.hierarchy import Hierarchy
from kneepoint.hardware_models.published.judging import standard_error
from kneepoint.hardware_models.published.leaving_out import (
    Prediction,
    fitted,
    leave_families_out,
    of_world,
)
from kneepoint.hardware_models.published.samples import samples
from kneepoint.hardware_models.published.systems import System
from kneepoint.hardware_models.published.validation import LEFT_OUT_COLUMNS, key_of, systems_of

ROOT = Path(__file__).parents[1]
SPECS = Path(__file__).with_name("device_specs.yaml")
DEVICE_FILES = ROOT / "hardware_models" / "device_files"
LEFT_OUT = ROOT / "hardware_models" / "published" / "left_out.csv"
WORLDS = ("cpu", "accelerator", "microcontroller")
_ONE_FAMILY = 0.3
"""What is added to the error of a system that one family alone was measured on, so that nothing could be left out."""
_ANOTHER_BOARD = 0.3
"""What is added to the error of a device whose rates are those of another one."""
_HEADER = "# Written by benchmarks/published_devices.py from benchmarks/device_specs.yaml and published latencies.\n"
_REFINED = (
    "Fitted to published whole-network latencies of this and of all other systems together, those that share a runtime "
    "drawn towards each other (kneepoint.hardware_models.published.hierarchy). This device's: {rows}."
)
_ERROR = (
    "Of families of networks left out of the fit, {rows} predictions, with those of alike systems as one family more; "
    "see refined."
)


def main() -> None:
    """Fit, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the page and the pictures alone")
    if not parser.parse_args().page:  # new files are seen once they are installed: run 'make lint', and --page
        with ProcessPoolExecutor(len(WORLDS)) as pool:
            worlds = list(pool.map(fit_and_judge, WORLDS))
        fits = dict(zip(WORLDS, (fit for fit, _ in worlds), strict=True))
        left_out = [prediction for _, predictions in worlds for prediction in predictions]
        write_devices(fits, left_out)
    write_page()


def fit_and_judge(world: str) -> tuple[Hierarchy, list[Prediction]]:
    """The fit that is shipped, and predictions by those that saw nothing of a family."""
    found = of_world(samples(), world)
    return fitted(found), list(leave_families_out(found))


def write_devices(fits: Mapping[str, Hierarchy], left_out: Sequence[Prediction]) -> None:
    """Every device file, and the predictions of families left out for those that were fitted."""
    specs: dict[str, dict[str, Any]] = yaml.safe_load(SPECS.read_text())
    shipped: list[Prediction] = []
    written: dict[str, Device] = {}
    for name, spec in sorted(specs.items(), key=lambda entry: "scaled_from" in entry[1]):
        used: list[Prediction] = []
        if "scaled_from" in spec:
            device = _scaled({"name": name, **spec}, written)
        else:
            device, used = _device({"name": name, **spec}, fits, left_out)
        written[name] = device
        shipped.extend(used)
        content = device.model_dump(mode="json", exclude_defaults=True)
        text = yaml.safe_dump(content, sort_keys=False, width=118, allow_unicode=True)
        (DEVICE_FILES / f"{name}.yaml").write_text(_HEADER + text)
    _write_left_out(shipped, left_out)


def _device(
    spec: dict[str, Any], fits: Mapping[str, Hierarchy], left_out: Sequence[Prediction]
) -> tuple[Device, list[Prediction]]:
    if "published" not in spec or "relative_error" in spec:
        return Device.model_validate(spec), []
    draft = {**spec, "relative_error": 1.0, "sources": {**spec["sources"], "relative_error": "draft"}}
    systems = systems_of(Device.model_validate(draft))
    if not systems:
        raise SystemExit(f"{spec['name']}: no published latency is of {spec['published']}")
    used = [entry for entry in left_out if entry.sample.system in systems]
    fit = fits[systems[0].world]
    refined = {system.precision: refined_rates(fit, system, _stated(system, None, left_out)) for system in systems}
    texts = {"refined": _REFINED.format(rows=_rows_of(systems)), "relative_error": _ERROR.format(rows=len(used))}
    fields = {
        **spec,
        "fusion": systems[0].fusion,  # what was fitted is what is priced
        "network_floor_us": inference_us(fit, systems),
        "refined": refined,
        "relative_error": max(entry["relative_error"] for entry in refined.values()),
        "sources": {**spec["sources"], **texts, "network_floor_us": "The same fit as refined."},
    }
    return Device.model_validate(fields), used


def _scaled(spec: dict[str, Any], written: Mapping[str, Device]) -> Device:
    """A device of which no network of the zoo was published: a sibling's rates, by the ratio of their clocks."""
    how = spec.pop("scaled_from")
    base = written[how["device"]]
    ratio = how["clock_mhz"] / how["its_clock_mhz"]
    refined = {
        name: {
            "launch_us": rates.launch_us / ratio,
            "classes": {
                key: {**entry.model_dump(), "rate": round(entry.rate * ratio, 6)}
                for key, entry in rates.classes.items()
            },
            "relative_error": round(math.hypot(rates.relative_error, _ANOTHER_BOARD), 3),
        }
        for name, rates in base.refined.items()
    }
    source = f"Those of {base.name}, times {how['clock_mhz']} over {how['its_clock_mhz']} MHz: the same core."
    texts = dict.fromkeys(("refined", "network_floor_us"), source)
    error = max(entry["relative_error"] for entry in refined.values())
    texts["relative_error"] = f"That of {base.name}, and {_ANOTHER_BOARD} beside it: memories differ. Assumed."
    floor = {"network_floor_us": base.network_floor_us / ratio}
    sources = {**spec["sources"], **texts}
    return Device.model_validate({**spec, **floor, "refined": refined, "relative_error": error, "sources": sources})


def _stated(system: System, family: str | None, left_out: Sequence[Prediction]) -> float:
    """One standard error for a system, from the errors on all families but one (or on all).

    A few families say little of the next one: those of alike systems count as one more.
    """
    others = [
        entry for entry in left_out if entry.sample.family != family and entry.sample.system.group == system.group
    ]
    own = [entry for entry in others if entry.sample.system == system]
    if not others:
        return 1.0
    alike = standard_error([entry.log_error for entry in others])
    if not own:
        return math.hypot(alike, _ONE_FAMILY)
    count = len({entry.sample.family for entry in own})
    variance = (count * standard_error([entry.log_error for entry in own]) ** 2 + alike**2) / (count + 1)
    return math.sqrt(variance)


def _rows_of(systems: Sequence[System]) -> str:
    found = samples()
    return "; ".join(f"{system.runtime}, {system.published_precision}, {len(found[system])}" for system in systems)


def _write_left_out(shipped: Sequence[Prediction], left_out: Sequence[Prediction]) -> None:
    with LEFT_OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LEFT_OUT_COLUMNS)
        for entry in sorted(shipped, key=lambda entry: key_of(entry.sample)):
            stated = _stated(entry.sample.system, entry.sample.family, left_out)
            writer.writerow([*key_of(entry.sample), f"{entry.latency_ms:.5g}", f"{stated:.3g}"])


if __name__ == "__main__":
    main()
