"""How a search scales: two workers against one on this machine, and a thousand simulated ones.

    python -m benchmarks.scale              both parts; a quarter of an hour
    python -m benchmarks.scale --simulated  the second part alone
    python -m benchmarks.scale --trials 10000 --simulated

The first part runs the search of the quickstart with one and with two worker processes, and compares the time from its
first proposal to its last record. The second hands 100,000 trials of the same job to simulated workers: proposals,
prices, the trial log (synced to disk) and the front are real; what a worker takes is drawn from a log-normal
distribution (mean 5 s), and its accuracy is an invented function of the policy. Waiting is skipped: the clock is the
coordinator's own time and what it would have waited. Figures go to benchmarks/results/scale.json. Exit code 0 where
all bars are reached.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import math
import resource
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kneepoint.job_file import parse_job, resolve_job
from kneepoint.quickstart import JOB
from kneepoint.search.climb import Climb
from kneepoint.search.dispatcher import Dispatcher
from kneepoint.search.driver import Driver
from kneepoint.search.finalists import FINALISTS
from kneepoint.search.job import Job
from kneepoint.search.progress import Progress, Status
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.running_front import RunningFront
from kneepoint.search.search_loop import SearchLoop
from kneepoint.search.trials import Trials
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.worker_state import WorkerState
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.metrics import Score

RESULTS = Path(__file__).parent / "results" / "scale.json"
EFFICIENCY, THROUGHPUT, IDLE = 0.85, 200.0, 0.05
REAL_TRIALS, TRIALS, WORKERS = 80, 100_000, 1000
MEAN_SECONDS, SIGMA = 5.0, 0.5
SEGMENTS = 10
Parts = dict[str, float]


@dataclass
class SimulatedWorkers:
    """Workers whose time passes only when the coordinator would wait for them.

    Attributes:
        count: How many.
        outcome: What a worker makes of an assignment.
    """

    count: int
    outcome: Callable[[Assignment, float], Record]
    skipped: float = 0.0
    own: float = 0.0
    idle: list[float] = field(default_factory=list)
    _free: list[tuple[float, int]] = field(default_factory=list)
    _busy: list[tuple[float, int, float, Assignment]] = field(default_factory=list)
    _queue: deque[Assignment] = field(default_factory=deque)
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        """All are free from now on."""
        start = self.now()
        self.idle = [0.0] * self.count
        self._free = [(start, worker) for worker in range(self.count)]

    def now(self) -> float:
        """The simulated clock, in seconds."""
        return time.perf_counter() - self.own + self.skipped

    @property
    def room(self) -> int:
        """As on a cluster: a tenth of the workers finds the next assignment waiting."""
        return self.count + self.count // 10 - len(self._busy) - len(self._queue)

    def submit(self, assignment: Assignment) -> None:
        """Begun at once where a worker is free."""
        if self._free:
            since, worker = heapq.heappop(self._free)
            self.idle[worker] += self.now() - since
            self._begin(worker, self.now(), assignment)
        else:
            self._queue.append(assignment)

    def wait(self, seconds: float) -> list[Outcome]:
        """What ended by now; the clock moves on to the first end where nothing did."""
        del seconds
        entered = time.perf_counter()
        if self._busy and self._busy[0][0] > self.now():
            self.skipped += self._busy[0][0] - self.now()
        now, outcomes = self.now(), []
        while self._busy and self._busy[0][0] <= now:
            end, worker, duration, assignment = heapq.heappop(self._busy)
            outcomes.append(Outcome(assignment, self.outcome(assignment, duration)))
            if self._queue:
                self._begin(worker, end, self._queue.popleft())
            else:
                heapq.heappush(self._free, (end, worker))
        self.own += time.perf_counter() - entered
        return outcomes

    def workers(self) -> Sequence[WorkerState]:
        """Of no interest here."""
        return []

    def close(self) -> None:
        """Nothing runs on."""

    def _begin(self, worker: int, at: float, assignment: Assignment) -> None:
        duration = float(self._random.lognormal(math.log(MEAN_SECONDS) - SIGMA**2 / 2, SIGMA))
        heapq.heappush(self._busy, (at + duration, worker, duration, assignment))


def invented(job: Job) -> Callable[[Assignment, float], Record]:
    """Records whose accuracy falls with bits and channels that are missing, and whose costs fall with them, too."""
    random = np.random.default_rng(1)
    weights: dict[str, float] = defaultdict(lambda: float(random.gamma(1.0)))

    def record(assignment: Assignment, duration: float) -> Record:
        policy = assignment.policy
        damage, cost = _damage_and_cost(policy, weights)
        values = {"accuracy": 0.97 - 0.6 * (1 - math.exp(-damage)) + 0.004 * float(random.standard_normal())}
        scores = {
            entry.name: Score(values.get(entry.name, cost), 0.005 if entry.name in values else None)
            for entry in job.scored
        }
        return Record(policy, assignment.fidelity, scores, duration, "simulated", None, None, assignment.parameters)

    return record


def _damage_and_cost(policy: Policy, weights: dict[str, float]) -> tuple[float, float]:
    bits = [(weights[name], layer.weight_bits) for name, layer in policy.layers]
    kept = [(weights[name], share) for name, share in policy.keep]
    damage = sum(weight * 4.0**-count for weight, count in bits) / 3 + sum(w * (1 - s) ** 2 for w, s in kept) / 30
    width = math.prod(share for _, share in kept) ** (1 / max(len(kept), 1))
    cost = 0.01 * width * (1 + sum(weight * count for weight, count in bits)) * (0.6 if policy.student else 1.0)
    return damage + (0.02 if policy.student else 0.0), cost


@contextlib.contextmanager
def clocks(loop: SearchLoop, trials: Trials, front: RunningFront) -> Iterator[Parts]:
    """Adds up the seconds of each part of the coordinator."""
    spent: Parts = defaultdict(float)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                spent[name] += time.perf_counter() - start

        return wrapper

    study = loop._study
    for owner, method, name in (
        (study, "ask", "propose"),
        (study, "tell", "tell"),
        (trials.log, "append", "log"),
        (front, "add", "front"),
        (trials.events, "write", "events"),
        (trials.dispatcher._executor, "wait", "simulation"),
        (trials.job.space, "policy", "policy"),
    ):
        setattr(owner, method, timed(name, getattr(owner, method)))
    yield spent


def simulated(trials: int, workers: int) -> dict[str, Any]:
    """The second part."""
    job = _job(trials=trials, constraints=[], workers=workers)
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.open_for(job)
        measured = Trials(job, directory)
        crew = SimulatedWorkers(workers, invented(job))
        measured.__dict__["dispatcher"] = Dispatcher(crew, measured.log, 2, directory.take, measured.events)
        segments = _Segments(crew, trials)
        progress = Progress(segments)
        front = RunningFront(measured, directory, progress)
        climb = Climb("recovered", FINALISTS, measured)
        loop = SearchLoop(measured, front, progress, lambda record, violations: None, climb)
        with clocks(loop, measured, front) as segments.parts:
            crew.__post_init__()
            segments.start()
            loop.run()
        found = segments.summary()
        directory.unlock()
    return {"workers": workers, "trials": trials, **found}


class _Segments:
    """An observer that notes every tenth of the trials what each part took since the last."""

    def __init__(self, crew: SimulatedWorkers, trials: int) -> None:
        self.parts: Parts = {}
        self._crew = crew
        self._trials = trials
        self._rows: list[dict[str, Any]] = []

    def start(self) -> None:
        """From now on."""
        self._begun = self._real = time.perf_counter()
        self._simulated = self._crew.now()
        self._before: Parts = {}
        self._done = self._latest = 0

    def __call__(self, status: Status) -> None:
        """Note a segment that has ended."""
        self._latest = status.done if status.stage == "searching" else self._latest
        if status.stage != "searching" or status.done < self._done + self._trials // SEGMENTS or not self.parts:
            return
        now, count = time.perf_counter(), status.done - self._done
        took = {name: self.parts[name] - self._before.get(name, 0.0) for name in self.parts}
        own = now - self._real - took.get("simulation", 0.0)
        self._rows.append(
            {
                "trials": status.done,
                "trials_per_second": round(count / own, 1),
                "ms": {name: round(1e3 * seconds / count, 3) for name, seconds in took.items() if name != "simulation"},
                "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
            }
        )
        print(json.dumps(self._rows[-1]), flush=True)
        self._real, self._before, self._done = now, dict(self.parts), status.done

    def summary(self) -> dict[str, Any]:
        """What came of it all."""
        own = time.perf_counter() - self._begun - self.parts["simulation"]
        span = self._crew.now() - self._simulated
        idle = [seconds / span for seconds in self._crew.idle]
        return {
            "trials_per_second": round(self._latest / own, 1),
            "idle_mean": round(float(np.mean(idle)), 4),
            "idle_worst": round(max(idle), 4),
            "demand_per_second": round(self._crew.count / MEAN_SECONDS, 1),
            "segments": self._rows,
        }


def real(trials: int) -> dict[str, Any]:
    """The first part: seconds from the first proposal to the last record, with one and with two processes."""
    found = {count: _seconds(trials, count) for count in (1, 2)}
    return {"trials": trials, "seconds": found, "efficiency": round(found[1] / (2 * found[2]), 3)}


class _Enough(Exception):  # noqa: N818 - it ends a run that has shown what it was for
    """The search is over; what follows it is of no interest."""


def _seconds(trials: int, workers: int) -> float:
    """One process has a limit of silence, so that it is a process of its own, as each of two is."""
    seen: list[float] = []

    def watch(status: Status) -> None:
        if status.stage == "searching":
            seen.append(time.perf_counter())
        if status.stage.startswith("recovering"):
            raise _Enough

    job = _job(trials=trials, sampler="random", workers={"count": workers, "silence_seconds": 600})
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, contextlib.suppress(_Enough):
        directory = RunDirectory(Path(folder) / "run")
        directory.open_for(job)
        Driver(job, directory, watch).run()
    print(f"{workers} worker(s): {seen[-1] - seen[0]:.1f} s", flush=True)
    return round(seen[-1] - seen[0], 2)


def _job(**changes: Any) -> Job:
    return resolve_job(parse_job({**JOB, **changes}, "the quickstart's job"), Path.cwd())


def main() -> int:
    """Measure and print; the figures go to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", action="store_true", help="the second part alone")
    parser.add_argument("--real", action="store_true", help="the first part alone")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of the second part")
    parser.add_argument("--workers", type=int, default=WORKERS, help="of the second part")
    options = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.simulated:
        found["real"] = real(REAL_TRIALS)
    if not options.real:
        found["simulated"] = simulated(options.trials, options.workers)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if _report(found) else 1


def _report(found: dict[str, Any]) -> bool:
    """Print the bars; whether all are reached."""
    bars = []
    if "real" in found:
        efficiency = found["real"]["efficiency"]
        bars.append((f"parallel efficiency of two workers at least {EFFICIENCY}", efficiency >= EFFICIENCY, efficiency))
    if "simulated" in found:
        rate, idle = found["simulated"]["trials_per_second"], found["simulated"]["idle_worst"]
        bars.append((f"{THROUGHPUT:g} trials a second through the coordinator", rate >= THROUGHPUT, rate))
        bars.append((f"no worker idle for more than {IDLE:.0%}", idle <= IDLE, idle))
    for bar, reached, value in bars:
        print(f"{'reached' if reached else 'MISSED '} {bar}: {value}")
    return all(reached for _, reached, _ in bars)


if __name__ == "__main__":
    sys.exit(main())
