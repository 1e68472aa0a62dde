"""Adapting a known device by a few measurements: how far off are whole networks of families nobody fitted to?

    python -m benchmarks.few_shot                    measure what is missing (some minutes), write the page
    python -m benchmarks.few_shot --fresh            measure everything anew
    python -m benchmarks.few_shot --base D           with another calibrated device than this-machine

The other devices are this machine again, otherwise: on two threads; under a quota of half a core (a control group of
version 1, 2.5 ms of every 5; else a duty cycle of SIGSTOP and SIGCONT); and at the extended level of ONNX Runtime's
optimizer, whose kernels block no channels, as on processors other than x86. Every network is visited in turn in all of
these settings, several times over, so that what else runs here hits all of them. What was measured goes to
benchmarks/results/few_shot.json, the findings to docs/few_shot.md. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.few_shot_page import page
from benchmarks.few_shot_settings import SETTINGS, Setting, Visitor
from benchmarks.hardware_models_files import ROOT, path_of, prepare
from kneepoint.deployment.bundles.base_prices import BasePrices
from kneepoint.deployment.bundles.few_shot import STRENGTHS, Latencies, adapt, fit_factors, kind_of
from kneepoint.deployment.bundles.plan import Plan
from kneepoint.deployment.calibration.executed import TimedNode, pair
from kneepoint.deployment.calibration.fitting import fit
from kneepoint.deployment.calibration.samples import Sample, SampleTable, TimedKernel
from kneepoint.deployment.machine import machine_name
from kneepoint.hardware_models.devices import load_device
from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.roofline import MAC_KINDS
from kneepoint.tasks.weight_cache import cache_folder

RESULTS = ROOT / "benchmarks" / "results" / "few_shot.json"
PAGE = ROOT / "docs" / "few_shot.md"
PLAN = Plan(seed=0, count=100, few=True)
COUNTS, DRAWS = (20, 50, 100), 3
"""Networks that a device is adapted by, and how often they are drawn from the hundred."""
HELD_OUT = (
    "resnet18-96", "mobilenetv3-small-128", "mobilenetv3-large-half-160", "efficientnet-b0-96", "convnext-48-96",
    "vit-192-96", "bert-tiny-128", "bert-mini-64", "student-quarter", "depthwise-digits",
)  # fmt: skip
VARIANTS = ("w32", "w8a8", "w8a8-dynamic", "w32@0.5", "w8a8@0.5")
PASSES = 3
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """A network that is measured.

    Attributes:
        name: In the results.
        model: Its file, or the serialized network.
        table: Its operators.
        kind: What it is like.
    """

    name: str
    model: bytes
    table: OperatorTable
    kind: str


@dataclass
class Results:
    """What was measured.

    Attributes:
        path: The file.
        machine: It was made on.
        us: By setting and network, one number a visit.
        nodes: By setting and network, what the profiler saw: name, operator, elements, microseconds.
    """

    path: Path
    machine: str
    us: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    nodes: dict[str, dict[str, list[list[Any]]]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, *, fresh: bool) -> Results:
        """What an earlier run left, if it was made here."""
        content = json.loads(path.read_text()) if path.is_file() and not fresh else {}
        if content.get("machine") != machine_name():
            return cls(path, machine_name())
        return cls(path, content["machine"], content["us"])

    def save(self) -> None:
        """Write them; profiles, which are long, are not kept."""
        self.path.write_text(json.dumps({"machine": self.machine, "us": self.us}) + "\n")

    def latency(self, setting: str, name: str) -> float:
        """The least disturbed visits': the lower quartile."""
        return float(np.percentile(self.us[setting][name], 25, method="lower"))


def trained_on() -> Iterator[Subject]:
    """The networks of a small bundle."""
    for planned in PLAN.networks():
        table = read_onnx(planned.network.model, batch=1)
        formats = [kernel.format for kernel in fuse(table, ()) if kernel.kind in MAC_KINDS]
        yield Subject(f"bundle-{planned.number}", planned.model, table, kind_of(planned.network.style, formats))


def held_out(folder: Path) -> Iterator[Subject]:
    """Whole networks of families that nothing was fitted to."""
    for network in HELD_OUT:
        prepare(network, folder)
        for variant in VARIANTS:
            try:
                path = path_of(folder, network, variant)
            except KeyError:
                continue
            if path.is_file():
                yield Subject(f"{network}/{variant}", path.read_bytes(), read_onnx(path), network)


def measure(subjects: Sequence[Subject], results: Results) -> None:
    """Visit every network in every setting, so often as is missing."""
    random = np.random.default_rng(0)
    visitors = {setting.name: Visitor(setting) for setting in SETTINGS}
    for number in range(1, PASSES + 1):
        for at, place in enumerate(random.permutation(len(subjects))):
            subject = subjects[place]
            for name in random.permutation(list(visitors)).tolist():
                visits = results.us.setdefault(name, {}).setdefault(subject.name, [])
                if len(visits) < number:
                    visits.append(round(visitors[name].visit(subject.model), 3))
            if at % 20 == 0:
                results.save()
                print(f"pass {number} of {PASSES}: {at}/{len(subjects)}", end="\r", file=sys.stderr)
        results.save()


def profile(subjects: Sequence[Subject], results: Results) -> None:
    """What the profiler sees of the bundle's networks, for fits from nothing."""
    for setting in SETTINGS:
        visitor = Visitor(setting)
        results.nodes[setting.name] = {
            subject.name: [list(row) for row in visitor.nodes(subject.model)] for subject in subjects
        }


# --- judging -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """How one method does in one setting.

    Attributes:
        setting: The other device.
        method: What predicts.
        count: Networks it was told.
        mape: Mean absolute error on held-out networks; the mean over draws, like the others.
        median: Median absolute error.
        within_10: Share within 10 %.
        stated: The error that cross-validation states, a root mean square of logarithms; None where there is none.
        rms: The same on the held-out networks.
    """

    setting: str
    method: str
    count: int
    mape: float
    median: float
    within_10: float
    stated: float | None
    rms: float


def judge(trained: Sequence[Subject], held: Sequence[Subject], results: Results, base: str) -> Iterator[Row]:
    """All methods, counts and settings."""
    for setting in SETTINGS:
        for count in COUNTS:
            draws = [_drawn(trained, count, draw) for draw in range(DRAWS if count < len(trained) else 1)]
            for method in (f"{base}, one factor", f"{base}, adapted", "x86-server, one factor", "x86-server, adapted"):
                found = [_adapted(method, setting, draw, held, results) for draw in draws]
                yield _row(setting.name, method, count, found)
            found = [_fitted(setting, draw, held, results) for draw in draws]
            yield _row(setting.name, "fitted from nothing, with profiles", count, found)


def _drawn(subjects: Sequence[Subject], count: int, draw: int) -> list[Subject]:
    order = np.random.default_rng(draw).permutation(len(subjects))
    return [subjects[place] for place in order[:count]]


def _row(setting: str, method: str, count: int, found: Sequence[tuple[Floats, float | None]]) -> Row:
    errors = [np.abs(np.exp(logs) - 1) for logs, _ in found]
    stated = [error for _, error in found if error is not None]
    return Row(
        setting=setting,
        method=method,
        count=count,
        mape=float(np.mean([one.mean() for one in errors])),
        median=float(np.mean([np.median(one) for one in errors])),
        within_10=float(np.mean([(one <= 0.1).mean() for one in errors])),
        stated=float(np.mean(stated)) if stated else None,
        rms=float(np.mean([np.sqrt(np.mean(logs**2)) for logs, _ in found])),
    )


def _adapted(
    method: str, setting: Setting, drawn: Sequence[Subject], held: Sequence[Subject], results: Results
) -> tuple[Floats, float | None]:
    """Logarithms of predicted over measured on held-out networks, and the error that is stated."""
    name, _, how = method.partition(", ")
    device = load_device(name)
    measured = _latencies(setting, drawn, results)
    prices = BasePrices.of(device, _table(drawn, setting), setting.threads)
    others = BasePrices.of(device, _table(held, setting), setting.threads)
    if how == "one factor":
        factors, stated = fit_factors(prices, measured, STRENGTHS[-1]), None
    else:
        (best,) = adapt([device], lambda _: prices, measured)
        factors, stated = best.factors, best.validation.rms_log
    return np.log(others.total_us(factors)) - _latencies(setting, held, results).log_us, stated


def _fitted(
    setting: Setting, drawn: Sequence[Subject], held: Sequence[Subject], results: Results
) -> tuple[Floats, float | None]:
    """The same by the model of a calibration; a kernel that it does not know takes no time."""
    nodes = results.nodes[setting.name]
    samples = [_sample(subject, setting, results, nodes[subject.name]) for subject in drawn]
    model = fit(SampleTable.of(samples)).model
    table = _table(held, setting)
    predicted, _ = model.predict(table.workload)
    totals = np.bincount(table.network, predicted, len(held)) + model.network_floor_us
    return np.log(np.maximum(totals, 1.0)) - _latencies(setting, held, results).log_us, None


def _sample(subject: Subject, setting: Setting, results: Results, nodes: Sequence[Sequence[Any]]) -> Sample:
    kernels = fuse(subject.table, setting.rules)
    timed = [TimedNode(*row) for row in nodes]
    pairs = {place: node.microseconds for place, node in pair(kernels, timed)}
    complete = len(pairs) == len(kernels) == len(timed)
    total = results.latency(setting.name, subject.name)
    return Sample(0, setting.threads, False, "", 1, total, complete, 0.0, TimedKernel.all(kernels, pairs))


def _table(subjects: Sequence[Subject], setting: Setting) -> SampleTable:
    samples = [
        Sample(0, setting.threads, False, "", 1, 1.0, False, 0.0, TimedKernel.all(fuse(one.table, setting.rules), {}))
        for one in subjects
    ]
    return SampleTable.of(samples)


def _latencies(setting: Setting, subjects: Sequence[Subject], results: Results) -> Latencies:
    visits = [results.us[setting.name][subject.name] for subject in subjects]
    doubt = [(np.median(one) - min(one)) / np.median(one) for one in visits]
    us = [results.latency(setting.name, subject.name) for subject in subjects]
    return Latencies.of(np.array(us), np.array(doubt), [subject.kind for subject in subjects])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    parser.add_argument("--base", default="this-machine", help="a device that was calibrated (default this-machine)")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "hardware_models", help="where models are kept")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # of torch's exporter, about itself
    trained, held = list(islice(trained_on(), PLAN.count)), list(held_out(arguments.cache))
    results = Results.open(RESULTS, fresh=arguments.fresh)
    measure([*trained, *held], results)
    profile(trained, results)
    rows = list(judge(trained, held, results, arguments.base))
    PAGE.write_text(page(rows, results.machine, load_device(arguments.base), facts(held, results)))
    for row in rows:
        print(row)
    return 0


def facts(held: Sequence[Subject], results: Results) -> Mapping[str, float]:
    """What the page says of the measurements: by setting, the median latency over that of the first setting."""
    first = [results.latency(SETTINGS[0].name, subject.name) for subject in held]
    found = {
        setting.name: float(np.median([results.latency(setting.name, one.name) for one in held] / np.array(first)))
        for setting in SETTINGS
    }
    return {**found, "networks": len(held), "lowest_us": min(first), "highest_us": max(first)}


if __name__ == "__main__":
    sys.exit(main())
