"""Times small networks on a device: a program of its own, which needs Python 3.8, NumPy and ONNX Runtime alone.

``kneepoint devices bundle`` copies this file beside the networks as ``run.py``. On the device::

    python run.py                          measure what is not measured yet, write results.jsonl
    python run.py --threads 1 4            at one thread, and at four
    python run.py --minutes 5              stop after five minutes; the same command goes on later

Ctrl-C or a power cut loses the network that was being timed and no more. ``kneepoint devices calibrate`` times its
networks with the very same functions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PLAN_SCHEMA, RESULTS_SCHEMA = "kneepoint.bundle/1", "kneepoint.results/1"
SLOW = 1.12
"""The reference network takes at most this factor of its usual time while the machine is quiet."""
SECONDS = 0.02
TRIES = 3
_NARROW = 0.2
"""Runs of one network that spread further are timed again."""
_SILENT = 4
_FEWEST, _MOST, _MOST_PROFILED = 5, 150, 40
"""Runs; those with the profiler write a line for every kernel, and reading them takes longer than they did."""
_TIGHT, _PATIENCE = 0.02, 4
"""Half the interval of the median over it, which is small enough; for so many times the usual runs it is waited for."""
_REMEMBERED = 400
_RUNS_OF_A_BEAT = 3
_SPINNING_SECONDS = 0.005
"""For so long a session's threads wait for more work before they give their cores back."""
_EVENT = "_kernel_time"
_TRUNCATED_US = 0.5
"""The profiler cuts durations off to whole microseconds."""
_LARGE_KB = 128 * 1024
_REPEATS = 7
_SYSTEM = Path("/sys/devices/system/cpu")
_MOST_REFUSED = 5
"""Networks in front that the runtime refuses, before it is taken to be too old."""


# --- timing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimedNode:
    """A node as the profiler saw it.

    Attributes:
        name: Of the node, as far as the optimizer kept it.
        operator: What the runtime calls it.
        elements: Of its first output.
        microseconds: A robust mean over the runs; what the profiler itself takes is still in it.
    """

    name: str
    operator: str
    elements: int
    microseconds: float


@dataclass(frozen=True)
class Timing:
    """One network.

    Attributes:
        total_us: A robust mean of an inference, without the profiler.
        nodes: What the profiler saw.
        slowdown: How much slower than usual the reference network was before, between and after; the worst of them.
        runs: Timed without the profiler.
        spread: Interquartile range of those over their median.
    """

    total_us: float
    nodes: Sequence[TimedNode]
    slowdown: float
    runs: int = 0
    spread: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether the machine was quiet meanwhile."""
        return self.slowdown <= SLOW


@dataclass
class Stopwatch:
    """Times networks at one thread count, each beside a reference network that is always the same.

    Attributes:
        reference: The reference network, as ONNX.
        feeds: Its inputs.
        threads: Threads inside an operator.
        others: Cores for all of them but this one, which is the first; none to leave it to the system. Two threads that
            were left to it were seen to share a core for whole sessions.
        beats: Microseconds of the reference network, on all the cores at once, the last few hundred times: another core
            may be busy with something else, or both share what one alone has to itself.
    """

    reference: bytes
    feeds: Mapping[str, Any]
    threads: int
    others: Sequence[int] = ()
    beats: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def __post_init__(self) -> None:
        """Open the reference network, and learn what it usually takes."""
        # One thread: the threads of a second pool would spin, and take a core from the network that is timed.
        self._reference = _session(self.reference, session_options(1, ()))
        self._helpers = [ThreadPoolExecutor(1, initializer=_pin, initargs=(core,)) for core in self.others]
        for _ in range(20):
            self._beat()

    def time(self, model: bytes, feeds: Mapping[str, Any], seconds: float = SECONDS, profile: bool = True) -> Timing:
        """How long ``model`` takes on ``feeds``.

        Args:
            model: As ONNX.
            feeds: Its inputs.
            seconds: For the runs with the profiler, and again for those without, which are up to four times as many
                while the interval of their median is wide; there are a few at least.
            profile: Whether to look at its nodes, too.
        """
        with tempfile.TemporaryDirectory() as folder:
            options = session_options(self.threads, self.others)
            options.enable_profiling = profile
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _session(model, options)
            session.run(None, feeds)
            once = _run_us(session, feeds)
            slowdowns = [self._slowdown()]
            nodes: Sequence[TimedNode] = ()
            if profile:
                for _ in range(min(_MOST_PROFILED, _runs(once, seconds))):
                    session.run(None, feeds)
                path = Path(session.end_profiling())  # from here on it runs without
                slowdowns.append(self._slowdown())
                nodes = tuple(read_profile(path))
            session.run(None, feeds)
            totals = _steady_runs(session, feeds, _runs(once, seconds))
            slowdowns.append(self._slowdown())
        low, middle, high = np.percentile(totals, [25, 50, 75]).tolist()
        return Timing(steady_mean(totals), nodes, max(slowdowns), len(totals), (high - low) / middle)

    def _slowdown(self) -> float:
        """The reference network's time over what it usually takes on a quiet machine."""
        beat = self._beat()
        return beat / float(np.percentile(self.beats, 20))

    def _beat(self) -> float:
        if self.threads > 1:
            time.sleep(_SPINNING_SECONDS)
        asked = [helper.submit(self._reference_us) for helper in self._helpers]
        slowest = max([self._reference_us(), *(future.result() for future in asked)])
        self.beats.append(slowest)
        return slowest

    def _reference_us(self) -> float:
        return statistics.median(_run_us(self._reference, self.feeds) for _ in range(_RUNS_OF_A_BEAT))


def session_options(threads: int, others: Sequence[int]) -> Any:
    """Of a session with its threads on cores of their own."""
    options = onnxruntime.SessionOptions()
    if others:
        cores = ";".join(str(core + 1) for core in others)  # the runtime counts from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", cores)
    # Random networks make numbers next to zero (softmax of large values, many layers that fade), which trained ones do
    # not, and on which a processor takes several times as long.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    return options


def read_profile(path: Path, skip: int = 2) -> list[TimedNode]:
    """The nodes of a profile that ONNX Runtime wrote, in the order in which they ran.

    Args:
        path: The file.
        skip: Runs to leave out in front, while caches and clocks warm up.
    """
    durations = defaultdict(list)
    arguments = {}
    for event in json.loads(path.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith(_EVENT):
            durations[event["name"]].append(event["dur"])
            arguments[event["name"]] = event["args"]
    return [
        TimedNode(
            name=name[: -len(_EVENT)],
            operator=arguments[name]["op_name"],
            elements=_elements(arguments[name]),
            microseconds=steady_mean(times[skip:]) + _TRUNCATED_US,
        )
        for name, times in durations.items()
    ]


def steady_mean(times: Sequence[float]) -> float:
    """The mean without the slowest third, which interruptions reach, and without the fastest few."""
    ordered = np.sort(np.asarray(times, np.float64))
    count = len(ordered)
    return float(ordered[count // 20 : max(1, count - count // 3)].mean())


def is_tight(times: Sequence[float]) -> bool:
    """Whether the 95 % interval of the median, between two order statistics, is within 2 % of it."""
    ordered = sorted(times)
    rank = _rank(len(ordered))
    return ordered[-rank] - ordered[rank - 1] <= 2 * _TIGHT * statistics.median(ordered)


def _rank(count: int) -> int:
    """The largest k with 1 - 2 P(Binomial(count, 1/2) < k) of at least 95 %; at least 1."""
    below, rank = 0.5**count, 1
    while rank <= count // 2 and 1 - 2 * (below + math.comb(count, rank) * 0.5**count) >= 0.95:
        below += math.comb(count, rank) * 0.5**count
        rank += 1
    return rank


def _elements(arguments: Mapping[str, Any]) -> int:
    outputs = arguments.get("output_type_shape") or [{"none": [0]}]
    (shape,) = outputs[0].values()
    return int(np.prod(shape, dtype=np.int64))


def _session(model: bytes, options: Any) -> Any:
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _runs(once_us: float, seconds: float) -> int:
    return int(np.clip(seconds * 1e6 / max(once_us, 1.0), _FEWEST, _MOST))


def _steady_runs(session: Any, feeds: Mapping[str, Any], runs: int) -> list[float]:
    """Microseconds of as many runs, and of as many again while the median's interval is wide."""
    times: list[float] = []
    while not times or (len(times) < _PATIENCE * runs and not is_tight(times)):
        times += [_run_us(session, feeds) for _ in range(runs)]
    return times


def _run_us(session: Any, feeds: Mapping[str, Any]) -> float:
    start = time.perf_counter_ns()
    session.run(None, feeds)
    return (time.perf_counter_ns() - start) / 1e3


# --- cores ---------------------------------------------------------------------------------------------------------


def usable_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def fastest_cores(threads: int, system: Path = _SYSTEM) -> list[int]:
    """One core for every thread: the fastest ones, one of each pair of siblings, the last ones first.

    A scheduler puts a busy thread on a fast core, and two threads on two physical cores. The first cores serve most
    interrupts.
    """
    usable = usable_cores()
    siblings = [read_text(system / f"cpu{core}" / "topology" / "thread_siblings_list") or str(core) for core in usable]
    costs = {
        core: (
            -int(read_text(system / f"cpu{core}" / "cpu_capacity") or 0),
            siblings[:index].count(siblings[index]),
            -core,
        )
        for index, core in enumerate(usable)
    }
    return sorted(sorted(usable, key=costs.__getitem__)[:threads])


@contextmanager
def pinned(threads: int) -> Iterator[Sequence[int]]:
    """This thread on the first of as many cores as there are threads; gives the others, where a system lets one choose.

    A program and its threads on one set of cores would do, if they spread over it; they sometimes do not.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    before = os.sched_getaffinity(0)
    first, *others = fastest_cores(threads)
    os.sched_setaffinity(0, {first})
    try:
        yield others
    finally:
        os.sched_setaffinity(0, before)


def _pin(core: int) -> None:
    """This thread alone."""
    os.sched_setaffinity(0, {core})


def read_text(path: Path) -> str:
    """What a small file of the system says; nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


# --- the machine ---------------------------------------------------------------------------------------------------


def processor_name() -> str:
    """What the system calls the processor or the board."""
    described = read_text(Path("/proc/cpuinfo")).splitlines()
    names = (line.partition(":")[2].strip() for line in described if line.startswith(("model name", "Model")))
    board = read_text(Path("/proc/device-tree/model"))
    return next(names, "") or board or platform.processor() or platform.machine()


def main_memory_mb() -> float:
    """Physical memory, 10^6 bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6


def main_memory_gb_s() -> float:
    """10^9 bytes a second that one thread copies within main memory, what it reads and what it writes."""
    return _copy_gb_s(_LARGE_KB)


def cache_levels(slowest: float, system: Path = _SYSTEM / "cpu0" / "cache") -> list[tuple[int, float]]:
    """The levels of cache the system reports: KiB, and the rate at which one thread copies within half of each.

    Args:
        slowest: 10^9 bytes a second of main memory; no level is given less.
        system: Where the kernel describes them.
    """
    sizes = sorted(set(_cache_sizes_kb(system)))
    rates = np.minimum.accumulate([_copy_gb_s(max(1, size // 4)) for size in sizes] or [slowest])
    return [(size, max(float(rate), slowest)) for size, rate in zip(sizes, rates)]  # noqa: B905 - Python 3.8


def saturates(flags: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether sums of two products of bytes saturate: on x86 without VNNI; None where that is not known."""
    text = read_text(flags)
    if not text:
        return None
    words = set(text.split())
    if not words & {"sse2", "avx"}:
        return False  # no x86
    return not words & {"avx512_vnni", "avx_vnni"}


def _cache_sizes_kb(system: Path) -> Iterator[int]:
    for level in sorted(system.glob("index*")):
        kind, size = read_text(level / "type"), read_text(level / "size")
        if kind in ("Data", "Unified") and size.endswith("K"):
            yield int(size[:-1])


def _copy_gb_s(kb: int) -> float:
    """The best of several copies, source and target together ``2 kb`` large."""
    source = np.ones(kb * 1024, np.uint8)
    target = np.empty_like(source)
    copies = max(1, _LARGE_KB // kb // 4)
    best = min(_seconds(source, target, copies) for _ in range(_REPEATS))
    return 2 * source.nbytes * copies / best / 1e9


def _seconds(source: Any, target: Any, copies: int) -> float:
    start = time.perf_counter()
    for _ in range(copies):
        np.copyto(target, source)
    return time.perf_counter() - start


def machine_facts() -> dict[str, Any]:
    """What a device file says of a machine that kernels do not show."""
    memory = main_memory_mb() if hasattr(os, "sysconf") else None
    large = memory is None or memory > 8 * _LARGE_KB / 1e3
    bandwidth = main_memory_gb_s() if large else _copy_gb_s(_LARGE_KB // 8)
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "processor": processor_name(),
        "cores": len(usable_cores()),
        "memory_mb": memory,
        "bandwidth_gb_s": bandwidth,
        "caches": cache_levels(bandwidth),
        "saturates": saturates(),
        "governor": read_text(_SYSTEM / "cpu0" / "cpufreq" / "scaling_governor") or None,
    }


# --- the program ---------------------------------------------------------------------------------------------------


class Refused(Exception):  # noqa: N818 - it reads as what happened
    """The program cannot go on; the text says why."""


@dataclass
class Results:
    """The file that takes a line for every network as soon as it is timed.

    Attributes:
        path: The file.
        done: What it holds: networks and thread counts.
        probed: The probes it holds.
    """

    path: Path
    done: set[tuple[int, int]] = field(default_factory=set)
    probed: set[int] = field(default_factory=set)

    @classmethod
    def open(cls, path: Path, plan: Mapping[str, Any]) -> Results:
        """What an earlier run left, if it was made here with this plan; else a file with its header.

        Raises:
            Refused: If the file holds something else.
        """
        if not path.exists():
            print("looking at the machine", file=sys.stderr)
            path.write_text("", encoding="utf-8")
            results = cls(path)
            results.append(_header(plan))
            return results
        lines = _whole_lines(path)
        _check_header(path, lines[0] if lines else {}, plan)
        results = cls(path)
        for line in lines[1:]:
            if line["kind"] == "probe":
                results.probed.add(line["network"])
            else:
                results.done.add((line["network"], line["threads"]))
        return results

    def append(self, entry: Mapping[str, Any]) -> None:
        """One line, on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of the file; one that a power cut left unfinished is cut off."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise Refused(f"{path} holds something other than results; name another file with --out") from error
    if len(whole) < len(content):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    return lines


def _header(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": RESULTS_SCHEMA,
        "plan": {key: plan[key] for key in ("seed", "few", "count", "digest")},
        "kneepoint": plan["kneepoint"],
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": machine_facts(),
    }


def _check_header(path: Path, header: Any, plan: Mapping[str, Any]) -> None:
    """Raise Refused if the file was begun with another plan, or elsewhere."""
    found = header if isinstance(header, dict) else {}
    expected = {"schema": RESULTS_SCHEMA, "onnxruntime": onnxruntime.__version__}
    machine = found.get("machine") or {}
    same = all(found.get(key) == value for key, value in expected.items())
    same = same and (found.get("plan") or {}).get("digest") == plan["digest"]
    if not same or (machine.get("processor"), machine.get("architecture")) != (processor_name(), platform.machine()):
        raise Refused(f"{path} holds results of another bundle, machine or onnxruntime; name another file with --out")


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan beside this program.

    Raises:
        Refused: If there is none of this version.
    """
    try:
        plan: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{folder} needs a plan.json beside run.py; copy the whole bundle again ({error})") from error
    if plan.get("schema") != PLAN_SCHEMA:
        raise Refused(f"plan.json is of the schema {PLAN_SCHEMA}; got {plan.get('schema')!r}: copy the bundle again")
    return plan


@dataclass
class Run:
    """One run of the program.

    Attributes:
        folder: Of the bundle.
        plan: What is measured.
        results: What was measured.
        profile: Whether to look at nodes.
        end: When to stop, by the monotonic clock.
    """

    folder: Path
    plan: Mapping[str, Any]
    results: Results
    profile: bool
    end: float
    refused: int = 0
    measured: int = 0

    def probe(self) -> None:
        """See what the optimizer makes of a few networks."""
        todo = [entry for entry in self.plan["probes"] if entry["network"] not in self.results.probed]
        with pinned(1) as others:
            stopwatch = self._stopwatch(1, others)
            for entry in todo:
                try:
                    timing = stopwatch.time(*self._loaded(entry), seconds=0)
                except Refused:
                    raise
                except Exception as error:  # onnxruntime raises its own unrelated types
                    self.results.append({**_named(entry, "probe"), "nodes": [], "refused": _first_line(error)})
                    continue
                self.results.append({**_named(entry, "probe"), "nodes": _rows(timing.nodes)})

    def measure(self, counts: Sequence[int]) -> bool:
        """Time what is not timed yet; whether nothing is left."""
        todo = {n: [e for e in self.plan["networks"] if (e["network"], n) not in self.results.done] for n in counts}
        left, start = sum(map(len, todo.values())), time.monotonic()
        watch = Progress(left, start, self.end)
        while any(todo.values()):
            for count in counts:
                if time.monotonic() > self.end:
                    return False
                self._turn(count, todo[count], watch)
        return True

    def _turn(self, threads: int, todo: list[Any], watch: Progress) -> None:
        """Some networks at one thread count: counts take turns, so that a drifting machine does not favour one."""
        with pinned(threads) as others:
            stopwatch = self._stopwatch(threads, others)
            for _ in range(min(10, len(todo))):
                if time.monotonic() > self.end:
                    return
                entry = todo.pop(0)
                start = time.monotonic()
                line = self._timed(entry, stopwatch)
                line["seconds"] = round(time.monotonic() - start, 3)
                self.results.append({**_named(entry, line.pop("kind")), "threads": threads, **line})
                watch.say(entry["network"], threads, line)

    def _timed(self, entry: Mapping[str, Any], stopwatch: Stopwatch) -> dict[str, Any]:
        """The best of a few timings: the first on a quiet machine, or the least disturbed one."""
        model, feeds = self._loaded(entry)
        timings: list[Timing] = []
        while len(timings) < TRIES and not (timings and timings[-1].quiet and timings[-1].spread <= _NARROW):
            try:
                timings.append(stopwatch.time(model, feeds, profile=self.profile))
            except Exception as error:  # onnxruntime raises its own unrelated types
                return self._refuse(error)
        best = min(timings, key=lambda timing: timing.slowdown + timing.spread)
        self.measured += 1
        return {
            "kind": "network",
            "us": round(best.total_us, 3),
            "runs": best.runs,
            "spread": round(best.spread, 4),
            "slowdown": round(best.slowdown, 4),
            "tries": len(timings),
            "nodes": _rows(best.nodes) if self.profile else None,
        }

    def _refuse(self, error: Exception) -> dict[str, Any]:
        self.refused += 1
        if not self.measured and self.refused > _MOST_REFUSED:
            raise Refused(
                f"onnxruntime {onnxruntime.__version__} runs none of the first networks (version 1.18 or newer is "
                f"needed): {_first_line(error)}"
            )
        return {"kind": "refused", "reason": _first_line(error)}

    def _loaded(self, entry: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """A network and inputs for it; none is negative, because some are numbers of rows to look up."""
        path = self.folder / entry["file"]
        try:
            model = path.read_bytes()
        except OSError as error:
            raise Refused(f"cannot read {path}; copy the whole bundle again ({error})") from error
        if hashlib.sha256(model).hexdigest() != entry["sha256"]:
            raise Refused(f"{path} is damaged (its SHA-256 is another); copy the bundle again")
        random = np.random.default_rng(entry["network"])
        shapes = entry["inputs"].items()
        return model, {name: np.abs(random.standard_normal(shape, np.float32)) for name, shape in shapes}

    def _stopwatch(self, threads: int, others: Sequence[int]) -> Stopwatch:
        return Stopwatch(*self._loaded(self.plan["reference"]), threads, others)


@dataclass
class Progress:
    """Says how far it is.

    Attributes:
        left: Networks to time, at all thread counts.
        start: When it began, by the monotonic clock.
        end: When it will stop.
        done: Networks timed.
    """

    left: int
    start: float
    end: float
    done: int = 0

    def say(self, network: int, threads: int, line: Mapping[str, Any]) -> None:
        """A line: written over on a terminal, every tenth in a log."""
        self.done += 1
        now = time.monotonic()
        remaining = min((now - self.start) / self.done * (self.left - self.done), self.end - now)
        found = f"{line['us'] / 1e3:.3f} ms" if "us" in line else "not run by this onnxruntime"
        text = (
            f"{self.done}/{self.left} networks, about {_minutes(remaining)} left; the last, {network} on {threads} "
            f"thread(s): {found}"
        )
        if sys.stderr.isatty():
            print("\r" + text.ljust(100), end="", file=sys.stderr, flush=True)
        elif self.done % 10 == 0 or self.done == self.left:
            print(text, file=sys.stderr, flush=True)


def _named(entry: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {"kind": kind, "network": entry["network"], "sha256": entry["sha256"]}


def _rows(nodes: Sequence[TimedNode]) -> list[list[Any]]:
    return [[node.name, node.operator, node.elements, round(node.microseconds, 3)] for node in nodes]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _minutes(seconds: float) -> str:
    seconds = max(0, round(seconds))
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


def main(argv: Sequence[str] | None = None, folder: Path | None = None) -> int:
    """Do what the arguments ask for."""
    parser = argparse.ArgumentParser(description="Time the networks of this bundle; an interrupted run goes on.")
    parser.add_argument("--threads", type=int, nargs="+", help="thread counts to measure (default: as planned)")
    parser.add_argument("--minutes", type=float, help="stop after so long (default: when all is measured)")
    parser.add_argument("--out", type=Path, help="the file to write (default: results.jsonl beside this program)")
    parser.add_argument("--no-profile", action="store_true", help="time whole networks alone")
    arguments = parser.parse_args(argv)
    try:
        return _run(arguments, folder or Path(__file__).resolve().parent)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace, folder: Path) -> int:
    plan = read_plan(folder)
    counts = list(dict.fromkeys(arguments.threads or plan["threads"]))
    cores = len(usable_cores())
    if not all(1 <= count <= cores for count in counts):
        raise Refused(f"thread counts are between 1 and the {cores} cores that may be used here; got {counts}")
    minutes = math.inf if arguments.minutes is None else arguments.minutes
    if not minutes > 0:
        raise Refused(f"--minutes is above 0; got {arguments.minutes}")
    end = time.monotonic() + 60 * minutes
    out = arguments.out or folder / "results.jsonl"
    profile = bool(plan["profile"]) and not arguments.no_profile
    run = Run(folder, plan, Results.open(out, plan), profile, end)
    if not arguments.no_profile:
        run.probe()
    finished = run.measure(counts)
    done = len(Results.open(out, plan).done)
    rest = "all is measured" if finished else "the time is up; the same command goes on"
    print(f"\n{out}: {done} timings; {rest}. Import it: kneepoint devices import {out.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
