"""Cuts the link of a host of a Ray cluster in the middle of a real search, and looks for what was lost.

    python -m benchmarks.cut_link                     a link cut for a minute, then one cut for good; as root, on Linux
    python -m benchmarks.cut_link --cuts 30 0         seconds of each cut; 0 is for good
    python -m benchmarks.cut_link --cuts 90 --spare 1 with a host more than workers, so that they can go on there

Every host is a network namespace at the end of a cable to a switch, with processes, a name, a /tmp and a shared memory
of its own, so nothing is shared but installed software and the cache of the teacher: what a worker stores reaches the
run directory through Ray alone. Raylets are started anew when they end, as a service manager does. A cut takes the
switch's end of the cable down, so packets vanish and nobody is told. The search is started as a user starts it on the
host of the cluster's head. Every line of the trial log that was ever seen must be in it at the end, once and
unchanged, and the front on disk must be the front of the log. Figures go to benchmarks/results/cut_link.json. Exit
code 0 where nothing was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from benchmarks.kills import SHORT, _front_is_of_log
from kneepoint.quickstart import JOB
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.status_file import read_status

RESULTS = Path(__file__).parent / "results" / "cut_link.json"
CUTS = (60.0, 0.0)
TRIALS, WORKERS = 200, 2
RECORDS_BEFORE = 6
"""The link is cut when so many records are there and its host measures something."""
PORT, STORE_BYTES = 6379, 150_000_000
SWITCH, HEAD, FIRST = "10.93.0.1", "10.93.0.10", 11
"""Addresses are seen by the hosts alone; workers have 10.93.0.11 and so on."""
GIVE_UP, LOOK_EVERY = 900.0, 0.1
_WAIT = """
import socket, sys, time
for _ in range(120):
    try:
        sys.exit(socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close())
    except OSError:
        time.sleep(0.5)
sys.exit("the head of the cluster does not answer")
"""


class Network:
    """Namespaces that are joined by one switch; removed at the end, however it comes."""

    def __init__(self) -> None:
        self._name = f"cut{uuid.uuid4().hex[:6]}"
        self._spaces: list[str] = []

    def __enter__(self) -> Network:
        """With a switch and no host."""
        switch = self._space("switch")
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "address", "add", f"{SWITCH}/24", "dev", "br0")
        _ip("-n", switch, "link", "set", "br0", "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """A namespace goes with its links."""
        for space in self._spaces:
            _ip("netns", "delete", space)

    def add(self, host: str, address: str) -> str:
        """Plug in a host; its namespace. It has a default route, as Ray asks for one to learn its address."""
        space, switch = self._space(host), self._spaces[0]
        _ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("-n", switch, "link", "set", host, "master", "br0", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "route", "add", "default", "via", SWITCH)
        return space

    def link(self, host: str, state: str) -> None:
        """Take the switch's end of a host's cable ``up`` or ``down``."""
        _ip("-n", self._spaces[0], "link", "set", host, state)

    def _space(self, name: str) -> str:
        space = f"{self._name}-{name}"
        _ip("netns", "add", space)
        self._spaces.append(space)
        return space


class Host:
    """A host that runs Ray until it is left; all its processes end with it.

    Args:
        network: To plug it in.
        name: Its own.
        address: Its own.
        ray: Arguments of ``ray start``.
        log: Takes its output.
        hidden: A folder that it does not see.
    """

    def __init__(
        self, network: Network, name: str, address: str, ray: list[str], log: Path, hidden: Path | None
    ) -> None:
        self.name, self.address = name, address
        self.log = log
        self._space = network.add(name, address)
        self._script = _script(name, [*ray, "--node-ip-address", address], hidden)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Host:
        """Switched on; its first process is the shell that starts Ray."""
        apart = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        command = ["ip", "netns", "exec", self._space, *apart, "sh", "-c", self._script]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Switched off: with its first process all others go."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def starts(self) -> int:
        """How often Ray was started."""
        return self.log.read_text(errors="replace").count("starting ray\n")

    def entered(self, command: list[str], folder: Path) -> list[str]:
        """``command`` as it is run on this host."""
        return ["nsenter", "--target", self._first, "--mount", "--uts", "--net", "--pid", f"--wd={folder}", *command]

    def sees(self, path: Path) -> bool:
        """Whether there is such a file here."""
        return Path(f"/proc/{self._first}/root{path}").exists()

    @property
    def _first(self) -> str:
        """The process whose end ends all others; it is there soon after the host was switched on."""
        deadline = time.monotonic() + 10
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            if children:
                return children[0]
            time.sleep(0.05)
        raise SystemExit(f"host {self.name} is down: {self.log.read_text(errors='replace')[-2000:]}")


@dataclass
class Search:
    """One search, and what was seen of it.

    Attributes:
        folder: Of its job file and run directory.
        network: Of its hosts.
        head: Where it is started.
        workers: Hosts for workers; the link of one that measures something is cut.
        seconds: For how long; 0 for good.
        victim: The host whose link was cut.
        seen: Lines of the trial log that were seen, at any time.
        moments: Unix times of what happened.
    """

    folder: Path
    network: Network
    head: Host
    workers: list[Host]
    seconds: float
    victim: Host | None = None
    seen: dict[str, str] = field(default_factory=dict)
    moments: dict[str, float] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    def run(self, trials: int) -> dict[str, Any]:
        """Search, with one cut; what came of it."""
        job = {**JOB, "trials": trials, "training": {**JOB["training"], **SHORT}, "workers": WORKERS}
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))
        self.moments["begun"] = time.time()
        driver = self._start()
        while driver.poll() is None and time.time() - self.moments["begun"] < GIVE_UP:
            time.sleep(LOOK_EVERY)
            self._look()
            self._disturb()
        self.moments["ended"] = time.time()
        return self._verdict(driver.poll())

    def _start(self) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "kneepoint", "search", "job.yaml"]
        command = self.head.entered([*program, "--out", str(self.out), "--ray", f"{HEAD}:{PORT}"], self.folder)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)  # noqa: S603

    def _look(self) -> None:
        """Remember every whole line of the log, and when the host was away from the search and there again."""
        log = self.out / "trials.jsonl"
        if log.exists():
            for line in log.read_text().split("\n")[:-1]:
                self.seen.setdefault(json.loads(line)["id"], line)
        if self.victim is not None:
            is_there = any(worker["node"] == self.victim.address for worker in self._workers())
            if not is_there:
                self.moments.setdefault("left", time.time())
            elif "left" in self.moments:
                self.moments.setdefault("back", time.time())

    def _disturb(self) -> None:
        """Cut the link of a host that measures something, and restore it when it is time."""
        if self.victim is None:
            busy = {worker["node"] for worker in self._workers() if worker["state"] == "measuring"}
            hosts = [host for host in self.workers if host.address in busy]
            if len(self.seen) >= RECORDS_BEFORE and hosts:
                self.victim = hosts[-1]
                self._set("cut", self.victim, "down")
        elif self.seconds and "restored" not in self.moments and time.time() - self.moments["cut"] >= self.seconds:
            self._set("restored", self.victim, "up")

    def _set(self, moment: str, host: Host, state: str) -> None:
        self.network.link(host.name, state)
        self.moments[moment] = time.time()
        print(f"{moment} the link of {host.name} after {len(self.seen)} records", flush=True)

    def _workers(self) -> list[dict[str, Any]]:
        status = read_status(RunDirectory(self.out).status_file)
        return [] if status is None else list(status["workers"])

    def _verdict(self, code: int | None) -> dict[str, Any]:
        self._look()
        lines = (self.out / "trials.jsonl").read_text().split("\n")[:-1]
        records = [json.loads(line) for line in lines]
        problems = ["it did not end" if code is None else f"exit code {code}"] if code != 0 else []
        problems += [] if self.victim is not None else ["it ended before the link was cut"]
        counts = Counter(record["id"] for record in records)
        problems += [f"{name} is there {count} times" for name, count in counts.items() if count > 1]
        problems += [f"{name} was lost or changed" for name, line in self.seen.items() if line not in set(lines)]
        if code == 0 and not _front_is_of_log(self.out):
            problems.append("the front is not the front of the log")
        if code != 0:
            print((self.folder / "output.txt").read_text(errors="replace")[-3000:])
        return {
            "cut_seconds": self.seconds or "for good",
            "records": len(records),
            "failed": sum(record["error"] is not None for record in records),
            "records_by_host": Counter(record["worker"].partition(":")[0] for record in records),
            "students": len(list((self.out / "students").glob("*.json"))),
            "victim": None if self.victim is None else self.victim.name,
            "starts_of_ray": {host.name: host.starts for host in self.workers},
            **self._losses(records),
            **self._times(),
            "problems": problems,
        }

    def _losses(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Trials that were lost with a worker, and what became of them."""
        lost = [event for event in self._events() if event["event"] == "trial lost"]
        measured = {record["id"] for record in records if record["error"] is None}
        return {
            "lost_with_a_worker": len(lost),
            "reasons": Counter(event["reason"] for event in lost),
            "measured_again": len({event["trial"] for event in lost} & measured),
        }

    def _times(self) -> dict[str, Any]:
        """Seconds from cut to notice, from restoring to the host's next worker and record, and of the whole."""
        cut, restored = self.moments.get("cut"), self.moments.get("restored")
        lost = [event["at"] for event in self._events() if event["event"] == "trial lost"]
        of_victim = "" if self.victim is None else f"{self.victim.name}:"
        ended = [event["at"] for event in self._events() if str(event.get("worker", "")).startswith(of_victim)]
        noticed = [*lost, *[self.moments[name] for name in ("left",) if name in self.moments]]
        return {
            "noticed_after": _first_after(cut, noticed),
            "worker_back_after": _first_after(restored, [self.moments.get("back", 0.0)]),
            "record_back_after": _first_after(restored, ended),
            "seconds": round(self.moments["ended"] - self.moments["begun"], 1),
        }

    def _events(self) -> list[dict[str, Any]]:
        """Events with their Unix times."""
        events = [json.loads(line) for line in RunDirectory(self.out).events_file.read_text().splitlines()]
        return [{**event, "at": datetime.fromisoformat(event["time"]).timestamp()} for event in events]


def _first_after(moment: float | None, times: list[float]) -> float | None:
    """Seconds from a moment to the first of some times that are later; None where there is none."""
    later = [] if moment is None else [time - moment for time in times if time > moment]
    return round(min(later), 1) if later else None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S603, S607


def _script(name: str, ray: list[str], hidden: Path | None) -> str:
    """What a host does: a view of its own, and Ray for ever."""
    view = ["/tmp", "/dev/shm", *([] if hidden is None else [str(hidden)])]  # noqa: S108 - the host's own
    start = [f"{Path(sys.executable).parent}/ray", "start", "--block", "--disable-usage-stats"]
    command = " ".join([*start, f"--object-store-memory={STORE_BYTES}", *ray])
    mounts = " && ".join(f"mount -t tmpfs own {folder}" for folder in view)
    return f"{mounts} && hostname {name} && while true; do echo starting ray; {command}; sleep 2; done"


def _searched(seconds: float, trials: int, hosts: int, keep: Path | None) -> dict[str, Any]:
    """One search on hosts of its own."""
    with tempfile.TemporaryDirectory(dir=Path.home(), prefix="cut-link-") as scratch, ExitStack() as stack:
        folder = Path(scratch) / "search"
        folder.mkdir()
        network = stack.enter_context(Network())
        head_ray = ["--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false"]
        head = stack.enter_context(Host(network, "head", HEAD, head_ray, Path(scratch) / "head.log", None))
        subprocess.run(head.entered([sys.executable, "-c", _WAIT, HEAD, str(PORT)], folder), check=True)  # noqa: S603
        workers = []
        for index in range(hosts):
            name, address = f"worker{index}", f"10.93.0.{FIRST + index}"
            ray = [f"--address={HEAD}:{PORT}", "--num-cpus=1"]
            host = Host(network, name, address, ray, Path(scratch) / f"{name}.log", folder)
            workers.append(stack.enter_context(host))
        search = Search(folder, network, head, workers, seconds)
        try:
            found = search.run(trials)
            if any(host.sees(search.out) for host in workers):
                found["problems"].append("a worker's host sees the run directory")
            return found
        finally:
            if keep is not None:
                _keep(scratch, [head, *workers], keep / f"cut-{seconds:g}")


def _keep(scratch: str, hosts: list[Host], target: Path) -> None:
    """Keep run directories and Ray's logs for whoever looks for a cause."""
    shutil.copytree(scratch, target / "scratch", dirs_exist_ok=True)
    for host in hosts:
        command = host.entered(["tar", "-C", "/tmp/ray", "--exclude=sockets", "-cf", "-", "."], Path("/"))  # noqa: S108
        with (target / f"{host.name}.tar").open("wb") as archive:
            subprocess.run(command, stdout=archive, check=False)  # noqa: S603


def _stop(number: int, frame: object) -> None:
    raise SystemExit(f"stopped by {signal.Signals(number).name}")


def main() -> int:
    """Cut, restore, and look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=float, nargs="+", default=list(CUTS), metavar="SECONDS")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--spare", type=int, default=0, help="hosts beyond one for every worker")
    parser.add_argument("--keep", type=Path, help="a folder for run directories and Ray's logs")
    options = parser.parse_args()
    if sys.platform != "linux" or os.getuid() != 0:
        parser.error("network namespaces take root, on Linux")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    found = list[dict[str, Any]]()
    for seconds in options.cuts:
        found.append(_searched(seconds, options.trials, WORKERS + options.spare, options.keep))
        print(json.dumps(found[-1]), flush=True)
        problems = found[-1]["problems"]
        cut = f"for {seconds:g} s" if seconds else "for good"
        print(f"{'MISSED ' if problems else 'reached'} a link cut {cut}: {problems or 'nothing lost'}", flush=True)
        RESULTS.write_text(
            json.dumps({"trials": options.trials, "spare_hosts": options.spare, "searches": found}, indent=1) + "\n"
        )
    return 1 if any(entry["problems"] for entry in found) else 0


if __name__ == "__main__":
    sys.exit(main())
