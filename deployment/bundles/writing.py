"""Writes a bundle: networks, a plan and a program that times them, for a device with Python and ONNX Runtime alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from kneepoint.deployment import device_program
from kneepoint.deployment.bundles.plan import USUAL, USUAL_FEW, Plan, Planned
from kneepoint.deployment.calibration.stopwatch import reference_feeds, reference_network
from kneepoint.tasks.errors import DeviceError

_NETWORKS = "networks"


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes:
        folder: Where.
        plan: What it measures.
        digest: SHA-256 over the digests of its networks.
        megabytes: Of all its files, 10^6 bytes.
    """

    folder: Path
    plan: Plan
    digest: str
    megabytes: float


def write_bundle(
    folder: str | Path,
    networks: int | None = None,
    seed: int = 0,
    threads: Sequence[int] = (1,),
    *,
    few: bool = False,
    report: Callable[[int, int], None] = lambda done, planned: None,
) -> Bundle:
    """Write a folder that measures another device: ``python run.py`` there times random small networks.

    The same arguments give the same networks, byte for byte, as long as kneepoint, NumPy and onnx are of one version.

    Args:
        folder: New, or empty.
        networks: How many; by default 600, and 60 with ``few``.
        seed: Of the networks.
        threads: The thread counts that are measured there unless it is told others.
        few: A small bundle of 20 to 100 networks that are timed as wholes in a few minutes: enough to adapt a known
            device, not to fit a new one.
        report: Hears of every network that was written, and of how many there are.

    Raises:
        DeviceError: If a number is out of range, or something is in the folder.
    """
    folder = Path(folder)
    plan = Plan(seed, networks if networks is not None else USUAL_FEW if few else USUAL, few)
    counts = list(dict.fromkeys(threads))
    if not counts or not all(1 <= count <= 1024 for count in counts):
        raise DeviceError(f"thread counts are between 1 and 1024; got {list(threads)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DeviceError(f"a bundle is written to a new or an empty folder; {folder} holds something")
    (folder / _NETWORKS).mkdir(parents=True)
    content = _content(folder, plan, counts, report)
    (folder / "plan.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(device_program.__file__, folder / "run.py")
    (folder / "README.txt").write_text(_readme(plan, counts), encoding="utf-8")
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Bundle(folder, plan, content["digest"], written / 1e6)


def digest_of(hashes: Sequence[str]) -> str:
    """SHA-256 over the SHA-256 digests of networks, in order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _content(folder: Path, plan: Plan, threads: Sequence[int], report: Callable[[int, int], None]) -> dict[str, Any]:
    networks = []
    for planned in plan.networks():
        networks.append(_entry(folder, f"{planned.number:04}.onnx", planned))
        report(planned.number + 1, plan.count)
    return {
        "schema": device_program.PLAN_SCHEMA,
        "seed": plan.seed,
        "few": plan.few,
        "count": plan.count,
        "digest": digest_of([entry["sha256"] for entry in networks]),
        "threads": threads,
        "profile": not plan.few,
        "kneepoint": version("kneepoint"),
        "versions": {"numpy": np.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        "reference": _reference(folder),
        "probes": [_entry(folder, f"probe{planned.number:02}.onnx", planned) for planned in plan.probes()],
        "networks": networks,
    }


def _entry(folder: Path, name: str, planned: Planned) -> dict[str, Any]:
    (folder / _NETWORKS / name).write_bytes(planned.model)
    feeds = planned.network.feeds(np.random.default_rng(0))
    return {"network": planned.number, "file": f"{_NETWORKS}/{name}", "sha256": planned.sha256, "inputs": _sizes(feeds)}


def _reference(folder: Path) -> dict[str, Any]:
    model, name = reference_network(), "reference.onnx"
    (folder / _NETWORKS / name).write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    return {"network": 0, "file": f"{_NETWORKS}/{name}", "sha256": digest, "inputs": _sizes(reference_feeds())}


def _sizes(feeds: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    return {name: list(feed.shape) for name, feed in feeds.items()}


def _readme(plan: Plan, threads: Sequence[int]) -> str:
    what = (
        "times each as a whole" if plan.few else "times each as a whole and, through ONNX Runtime's profiler, by kernel"
    )
    return f"""Measures this device for kneepoint.

run.py runs {plan.count} small random networks through ONNX Runtime (CPU) and {what}.
It needs Python 3.8 or newer, NumPy, and onnxruntime 1.18 or newer, and nothing else; it reads this folder, writes one
file and uses no network.

1. Copy this folder to the device. Close what else runs there; fix the clock if you can (governor "performance").
2. There:      python run.py                     (threads: {" ".join(map(str, threads))}; others: --threads 1 4)
   It says how long it will take. Ctrl-C or a power cut loses nothing: the same command goes on.
   --minutes 5 stops after five minutes.
3. Copy results.jsonl back, and:    kneepoint devices import results.jsonl --name my-board
"""
