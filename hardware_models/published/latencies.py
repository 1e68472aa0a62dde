"""Published whole-network latencies, each with the document it is from.

They are facts gathered from documents that others wrote: audited MLPerf results, READMEs of runtimes, pages of vendors.
``sources.csv`` has the title and address of each.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PublishedLatency:
    """One published figure.

    Attributes:
        device: An identifier of the hardware.
        runtime: With its version and configuration, as far as they were published.
        threads: Of one inference; None where that was not published.
        network: As the zoo calls it, or finds it by another name.
        precision: Of weights and activations.
        batch: Samples of one inference.
        latency_ms: Milliseconds.
        statistic: What of the repetitions was published.
        quality: ``A`` audited or first-party protocol, ``B`` a project's README, ``C`` by the community, or with more
            than the network in it.
        power_w: Watts while it ran, of the whole device at the wall or of a microcontroller alone; None where nobody
            measured.
        note: What makes it hard to compare, or empty.
        source: Title of the document.
        url: Its address.
    """

    device: str
    runtime: str
    threads: int | None
    network: str
    precision: str
    batch: int
    latency_ms: float
    statistic: str
    quality: str
    power_w: float | None
    note: str
    source: str
    url: str


@cache
def published_latencies() -> tuple[PublishedLatency, ...]:
    """All of them, in the order of the documents."""
    sources = {row["source"]: row for row in _rows("sources.csv")}
    return tuple(_latency(row, sources[row["source"]]) for row in _rows("latencies.csv"))


def _latency(row: dict[str, str], source: dict[str, str]) -> PublishedLatency:
    return PublishedLatency(
        device=row["device"],
        runtime=row["runtime"],
        threads=int(row["threads"]) if row["threads"] else None,
        network=row["network"],
        precision=row["precision"],
        batch=int(row["batch"] or 1),
        latency_ms=float(row["latency_ms"]),
        statistic=row["statistic"],
        quality=row["quality"],
        power_w=float(row["power_w"]) if row["power_w"] else None,
        note=row["note"],
        source=source["title"],
        url=source["url"],
    )


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (_FOLDER / name).open(newline="") as file:
        yield from csv.DictReader(file)
