"""Predicted against measured latency of whole networks that no calibration has seen, on this machine.

    python -m benchmarks.hardware_models                     prepare, measure what is missing, judge
    python -m benchmarks.hardware_models --fresh             measure everything anew, in about 20 minutes on two cores
    python -m benchmarks.hardware_models --prepare           write the networks' files only (once, some minutes)
    python -m benchmarks.hardware_models --quick             a small part in about a minute; nothing is kept
    python -m benchmarks.hardware_models --diagnose CASE     kernel kinds of one case, predicted and profiled

The device comes from ``kneepoint devices calibrate``, or is any other device file. What was measured goes to
benchmarks/results/hardware_models.json, the page to docs/hardware_models.md with its picture beside it. An interrupted
run goes on where it stopped. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.hardware_models_bars import kernel_bars, network_bars, speed_bars
from benchmarks.hardware_models_diagnosis import diagnose
from benchmarks.hardware_models_files import ROOT, Case, cases, path_of, prepare
from benchmarks.hardware_models_judging import MODELS, by_group, facts, frame_of
from benchmarks.hardware_models_measuring import PASSES, REFERENCE, SECONDS, Results, measure
from benchmarks.hardware_models_networks import SUBJECTS
from benchmarks.hardware_models_page import COLUMN, Findings, page
from benchmarks.hardware_models_picture import picture
from benchmarks.hardware_models_prices import Pricer
from benchmarks.hardware_models_worker import pin
from kneepoint.hardware_models import Device, load_device
from kneepoint.tasks.errors import InputError, KneepointError, nearest
from kneepoint.tasks.weight_cache import cache_folder

RESULTS = ROOT / "benchmarks" / "results" / "hardware_models.json"
PAGE = ROOT / "docs" / "hardware_models.md"
PICTURE = PAGE.with_suffix(".png")
QUICK_VARIANTS = ("w32", "w8a8")
QUICK_PASSES, QUICK_SECONDS = 3, 0.15


def selected(networks: Sequence[str], *, quick: bool) -> list[Case]:
    """The cases asked for: all, those of some networks, or with ``quick`` a few of every family.

    Raises:
        InputError: If there is no network of a name.
    """
    found = cases(tuple(map(_known, networks)) or None)
    if not quick:
        return found
    first = {case.family: case for case in reversed(found)}
    return [
        case
        for case in found
        if case.variant in QUICK_VARIANTS
        and (case.network, case.threads, case.batch)
        == (first[case.family].network, first[case.family].threads, first[case.family].batch)
    ]


def prepare_all(networks: Sequence[str], folder: Path) -> None:
    """Write the files that are not there yet; those of the reference network, too."""
    for name in dict.fromkeys((REFERENCE[0], *networks)):
        for path in prepare(name, folder):
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
        _remove_outdated(name, folder)


def _remove_outdated(network: str, folder: Path) -> None:
    """Files that sources of another version have written."""
    for variant in SUBJECTS[network].variants:
        current = path_of(folder, network, variant)
        pattern = re.compile(re.escape(f"{network}-{variant}-") + r"[0-9a-f]{12}\.onnx")
        for path in folder.iterdir():
            if pattern.fullmatch(path.name) and path != current:
                path.unlink()


def judge(chosen: Sequence[Case], folder: Path, results: Results, device: Device) -> Findings:
    """Price every case, from its file and from its network, and hold all against the bars."""
    pricer = Pricer(device)
    prices = dict(pricer.prices(chosen, folder))
    frame = frame_of({case: results.of(case, folder) for case in chosen}, prices)
    differing = list(pricer.differing(chosen, prices))
    for case in differing:
        print(f"{case.name}: its network and policy are priced otherwise than its file", file=sys.stderr)
    bars = [*network_bars(facts(frame, COLUMN), len(differing)), *kernel_bars(device)]
    return Findings(frame, bars, results, device)


def write(found: Findings) -> None:
    """The page and its picture."""
    PICTURE.write_bytes(picture(found.frame))
    PAGE.write_text(page(found, PICTURE.name))


def report(found: Findings, *, as_json: bool) -> None:
    """Facts by family, and the bars: for people, or as JSON."""
    models = {name: by_group(found.frame, column, lambda rows: rows.family) for name, column in MODELS.items()}
    if as_json:
        families = {name: {family: asdict(one) for family, one in groups.items()} for name, groups in models.items()}
        print(json.dumps({"models": families, "bars": [asdict(bar) for bar in found.bars]}))
        return
    for name, groups in models.items():
        print(name)
        for family, one in groups.items():
            print(
                f"  {family:<14}{one.cases:>5} cases  <5 %: {one.within_5:>4.0%}  <10 %: {one.within_10:>4.0%}  "
                f"MAPE {one.mape:>6.1%}  worst {one.worst:>+7.1%}  tau {one.tau:5.2f}  order {one.order:>4.0%}"
            )
    for bar in found.bars:
        print(f"{'yes' if bar.reached else 'NO ':<4} {bar.name}: {bar.figure}")


def progress(done: int, planned: int, disturbed: float) -> None:
    """A line that is written over."""
    print(f"{done}/{max(done, planned)} visits, {disturbed:.1%} disturbed", end="\r", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments ask for."""
    arguments = _arguments(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch's exporter, about itself
    logging.disable(logging.WARNING)
    try:
        return _run(arguments)
    except KneepointError as error:
        print(error, file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    diagnosed = _case(arguments.diagnose) if arguments.diagnose else None
    chosen = [diagnosed] if diagnosed else selected(arguments.only, quick=arguments.quick)
    prepare_all([case.network for case in chosen], arguments.cache)
    if arguments.prepare:
        return 0
    device = load_device(arguments.device)
    if diagnosed:
        pin(diagnosed.threads)
        print(diagnose(diagnosed, arguments.cache, device))
        return 0
    results = Results.open(None if arguments.quick else RESULTS, fresh=arguments.fresh)
    passes, seconds = (QUICK_PASSES, QUICK_SECONDS) if arguments.quick else (PASSES, SECONDS)
    measure(chosen, arguments.cache, results, passes, seconds, progress)
    found = judge(chosen, arguments.cache, results, device)
    if not arguments.quick and not arguments.only:
        found.bars.extend(speed_bars())
        write(found)
    report(found, as_json=arguments.json)
    return 0 if all(bar.reached for bar in found.bars) else 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="this-machine", help="name or file of what predicts (default this-machine)")
    parser.add_argument("--only", action="append", default=[], metavar="NETWORK", help="this network; repeatable")
    parser.add_argument(
        "--cache", type=Path, default=cache_folder() / "hardware_models", help="where model files are kept"
    )
    parser.add_argument("--prepare", action="store_true", help="write model files only")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    parser.add_argument("--quick", action="store_true", help="a small part; nothing is kept")
    parser.add_argument("--diagnose", metavar="CASE", help="for example resnet18-96/w8a8@0.5/t1b1")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    return parser.parse_args(argv)


def _known(network: str) -> str:
    if network not in SUBJECTS:
        raise InputError(f"there is no network {network!r}; {nearest(network, SUBJECTS)}")
    return network


def _case(name: str) -> Case:
    """The case of a name, at any threads and batch."""
    found = re.fullmatch(r"([^/]+)/([^/]+)/t(\d+)b(\d+)", name)
    if found is None:
        raise InputError(f"a case is NETWORK/VARIANT/tTHREADSbBATCH, as in resnet18-96/w8a8@0.5/t1b1; got {name!r}")
    network, variant, threads, batch = found.groups()
    variants = SUBJECTS[_known(network)].variants
    if variant not in variants:
        raise InputError(f"{network} has no variant {variant!r}; {nearest(variant, variants)}")
    return Case(network, variant, int(threads), int(batch))


if __name__ == "__main__":
    sys.exit(main())
