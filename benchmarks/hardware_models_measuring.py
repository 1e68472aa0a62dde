"""Measures the cases of hardware_models.py in turn, so that all of them meet the same machine.

Every pass visits every case once, in another order. Each visit is framed by a small network whose latency says whether
the machine is disturbed; a disturbed visit is made again in a later pass, as often as ``EXTRA_PASSES`` allow.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.hardware_models_files import ROOT, Case, cases, path_of
from kneepoint.deployment.machine import machine_name
from kneepoint.deployment.measuring_process import machine_lock
from kneepoint.deployment.timing import Interval, median_interval

PASSES = 5
EXTRA_PASSES = 3
SECONDS = 0.25
"""Of one visit."""
REFERENCE = "resnet26-half-64", "w32"
"""A network of about a millisecond, whose latency says how the machine is."""
DISTURBED = 1.04
"""Times its usual latency, the lower quartile of all readings: those of a quiet machine are the low ones."""
RENEWED = 30
"""Visits after which a process is replaced."""
_SETTLING = 10
"""First readings of the reference, which no visit depends on."""
_SAVED_EVERY = 5.0
Report = Callable[[int, int, float], None]
"""Progress: (visits made, visits planned, share of disturbed ones)."""


@dataclass
class Measured:
    """The visits to one case.

    Attributes:
        file: SHA-256 of the model.
        clean_us: Medians of undisturbed visits.
        disturbed_us: Those of the others.
    """

    file: str
    clean_us: list[float] = field(default_factory=list)
    disturbed_us: list[float] = field(default_factory=list)

    @property
    def visits(self) -> int:
        """How many there were."""
        return len(self.clean_us) + len(self.disturbed_us)

    @property
    def used_us(self) -> list[float]:
        """The visits that count: undisturbed ones, unless the machine left too few of them."""
        return self.clean_us if len(self.clean_us) > PASSES // 2 else self.clean_us + self.disturbed_us

    @property
    def latency_us(self) -> Interval:
        """The median over visits; five of them give it an interval of 94 % confidence."""
        return median_interval(self.used_us)

    def needs(self, number: int, passes: int) -> bool:
        """Whether pass ``number`` (from 1) visits the case."""
        return self.visits < number and len(self.clean_us) < passes


class Worker:
    """A process with ``threads`` pinned threads, which opens a model anew for every visit; use it as a context.

    Attributes:
        readings: What the reference network took.
    """

    def __init__(self, threads: int, reference: Path) -> None:
        self._threads = threads
        self._reference = reference
        self._process = self._started()
        self._visits = 0
        self.readings: list[float] = []

    def __enter__(self) -> Worker:
        for _ in range(_SETTLING):
            self.visit(self._reference, 1, 0.0)
        return self

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.hardware_models_worker", str(self._threads), str(self._reference)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(  # noqa: S603 - ours
            command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environment
        )

    def _renew(self) -> None:
        """A fresh process: what an old one has allocated moves latencies by several percent, always the same way."""
        self._process.kill()
        self._process.communicate()
        self._process = self._started()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()  # it closes the pipes

    def visit(self, path: Path, batch: int, seconds: float) -> tuple[float, bool]:
        """Microseconds of a run, and whether the machine was disturbed meanwhile.

        Raises:
            RuntimeError: If the process died.
        """
        self._visits += 1
        if self._visits % RENEWED == 0:
            self._renew()
        asked = json.dumps({"path": str(path), "batch": batch, "seconds": seconds})
        print(asked, file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline() if self._process.stdout else ""):
            raise RuntimeError(f"the process that measures ended while it ran {path.name}")
        said = json.loads(line)
        self.readings += said["reference_us"]
        usual = statistics.quantiles(self.readings, n=4, method="inclusive")[0]
        return said["us"], max(said["reference_us"]) > DISTURBED * usual


@dataclass
class Results:
    """What was measured, on disk and in memory.

    Attributes:
        path: The file; None keeps nothing.
        machine: What the figures belong to.
        measured: By the case's name.
    """

    path: Path | None
    machine: str
    measured: dict[str, Measured] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, *, fresh: bool) -> Results:
        """What an earlier run left, if it was made here; nothing with ``fresh``."""
        here = machine_name()
        if path is None or fresh or not path.is_file():
            return cls(path, here)
        content = json.loads(path.read_text())
        if content["machine"] != here:
            return cls(path, here)
        return cls(path, here, {name: Measured(**found) for name, found in content["cases"].items()})

    def of(self, case: Case, folder: Path) -> Measured:
        """The visits to ``case``, none where its file is another one by now."""
        digest = hashlib.sha256(path_of(folder, case.network, case.variant).read_bytes()).hexdigest()[:16]
        if case.name not in self.measured or self.measured[case.name].file != digest:
            self.measured[case.name] = Measured(digest)
        return self.measured[case.name]

    @property
    def disturbed_share(self) -> float:
        """Of all visits."""
        visits = sum(found.visits for found in self.measured.values())
        return sum(len(found.disturbed_us) for found in self.measured.values()) / max(visits, 1)

    def save(self) -> None:
        """Write all that is known, a line a case."""
        if self.path is None:
            return
        known = [case.name for case in cases() if case.name in self.measured]
        lines = [f"  {json.dumps(name)}: {json.dumps(_rounded(self.measured[name]))}" for name in known]
        text = f'{{\n "machine": {json.dumps(self.machine)},\n "cases": {{\n' + ",\n".join(lines) + "\n }\n}\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self.path)


def _rounded(found: Measured) -> dict[str, Any]:
    return {
        "file": found.file,
        "clean_us": [round(value, 2) for value in found.clean_us],
        "disturbed_us": [round(value, 2) for value in found.disturbed_us],
    }


def measure(
    chosen: Sequence[Case], folder: Path, results: Results, passes: int, seconds: float, report: Report
) -> None:
    """Visit every case until it has ``passes`` undisturbed visits, or has been visited ``EXTRA_PASSES`` times more."""
    known = {case: results.of(case, folder) for case in chosen}
    if not any(found.needs(passes + EXTRA_PASSES, passes) for found in known.values()):
        return
    reference, saved = path_of(folder, *REFERENCE), time.monotonic()
    planned = sum(max(0, passes - len(found.clean_us)) for found in known.values())
    with ExitStack() as stack:
        stack.enter_context(machine_lock())
        counts = {case.threads for case in chosen}
        workers = {threads: stack.enter_context(Worker(threads, reference)) for threads in counts}
        for done, case in enumerate(_turns(known, passes), start=1):
            path = path_of(folder, case.network, case.variant)
            found, disturbed = workers[case.threads].visit(path, case.batch, seconds)
            (known[case].disturbed_us if disturbed else known[case].clean_us).append(found)
            report(done, planned, results.disturbed_share)
            if time.monotonic() - saved > _SAVED_EVERY:
                results.save()
                saved = time.monotonic()
    results.save()


def _turns(known: Mapping[Case, Measured], passes: int) -> Iterator[Case]:
    """Whose turn it is, pass by pass; every visit is noted before the next one is asked for."""
    for number in range(1, passes + EXTRA_PASSES + 1):
        todo = [case for case, found in known.items() if found.needs(number, passes)]
        random.Random(number).shuffle(todo)  # noqa: S311 - an order, not a secret
        yield from todo
