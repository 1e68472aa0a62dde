"""``kneepoint devices bundle`` and ``import``: their progress, and what they say in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from kneepoint.deployment.bundles import Bundle, Imported, write_bundle

_SHOWN = 3
"""Known devices that are named beside the one that was adapted."""


def bundle_with_progress(folder: Path, networks: int | None, seed: int, threads: Sequence[int], *, few: bool) -> Bundle:
    """Write a bundle, with a bar on standard error if that is a terminal.

    Raises:
        DeviceError: As :func:`kneepoint.deployment.bundles.write_bundle` does.
    """
    columns = (TextColumn("writing networks"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)
        return write_bundle(
            folder,
            networks,
            seed,
            threads,
            few=few,
            report=lambda done, all_: bar.update(task, completed=done, total=all_),
        )


def facts_of_bundle(bundle: Bundle) -> dict[str, Any]:
    """What ``--json`` prints."""
    plan = bundle.plan
    return {
        "folder": str(bundle.folder),
        "networks": plan.count,
        "seed": plan.seed,
        "few": plan.few,
        "digest": bundle.digest,
        "megabytes": round(bundle.megabytes, 1),
    }


def lines_of_bundle(bundle: Bundle) -> Iterator[str]:
    """What people read."""
    yield f"{bundle.folder}: {bundle.plan.count} networks, {bundle.megabytes:.0f} MB"
    yield "copy it to the device, run 'python run.py' there (Python 3.8+, NumPy, onnxruntime 1.18+), and copy back"
    yield "results.jsonl; then: kneepoint devices import results.jsonl --name NAME"


def lines_of_import(imported: Imported) -> Iterator[str]:
    """What people read."""
    counts = ", ".join(f"{number} on {count} thread(s)" for count, number in imported.networks.items())
    how = "fitted" if imported.base is None else f"adapted from {imported.base}"
    yield f"{imported.path}: {imported.device.description}"
    yield f"{how}; networks: {counts}; fusion rules: {', '.join(imported.device.fusion) or 'none'}"
    yield from _lines_of_adapted(imported) if imported.base is not None else _lines_of_fitted(imported)
    for note in imported.notes:
        yield f"note: {note}"


def _lines_of_fitted(imported: Imported) -> Iterator[str]:
    for count, errors in imported.errors.items():
        yield (
            f"{count} thread(s), on {errors['networks']} networks that nothing was fitted to: within 10 % "
            f"{errors['within_10']:.0%}, mean error {errors['network_mape']:.1%}"
        )


def _lines_of_adapted(imported: Imported) -> Iterator[str]:
    errors = imported.errors
    yield (
        f"cross-validated over kinds of networks: mean error {errors['mape']:.1%}, within 10 % "
        f"{errors['within_10']:.0%} (one factor alone: {errors['one_factor']['mape']:.1%})"
    )
    others = [name for name in imported.candidates if name != imported.base][:_SHOWN]
    if others:
        yield "next best: " + ", ".join(f"{name} {imported.candidates[name]['mape']:.1%}" for name in others)
