"""Kills workers, drivers and Ray nodes at random moments of real searches, and looks for what was lost.

    python -m benchmarks.kills              20 kills, about ten minutes
    python -m benchmarks.kills --kills 4 --seed 1

A search on digits is run as a user runs it (``kneepoint search``, then ``kneepoint resume`` whenever its driver was
lost), by turns with two processes of this machine and on a Ray cluster of several nodes. The trial log is read all the
time; at the end every line that was ever seen there must be in it, once and unchanged, and the front on disk must be
the front of the log. Figures go to benchmarks/results/kills.json. Exit code 0 where nothing was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ray.cluster_utils import Cluster

from kneepoint.front_door import _job_of
from kneepoint.quickstart import JOB
from kneepoint.search.front_file import read_front
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trials import Trials

RESULTS = Path(__file__).parent / "results" / "kills.json"
KILLS, KILLS_A_SEARCH = 20, 4
SHORT = {"student_steps": 150, "recovery_steps": 40}
TRIALS = 48
GIVE_UP = 900.0
PAUSE = (2.0, 12.0)
"""Seconds between two kills of one search, counted from when its driver has measured something."""


@dataclass
class Search:
    """One search that is killed again and again.

    Attributes:
        folder: Of its job file and run directory.
        cluster: That it runs on; None for processes of this machine.
        random: Chooses victims and moments.
        seen: Lines of the trial log that were seen, at any time.
        kills: What was killed, and how often.
    """

    folder: Path
    cluster: Any
    random: random.Random
    seen: dict[str, str] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0

    @property
    def out(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    def run(self, kills: int) -> dict[str, Any]:
        """Search, with so many kills; the verdict."""
        job = {**JOB, "trials": TRIALS, "training": {**JOB["training"], **SHORT}, "workers": 2}
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))
        begun = time.monotonic()
        driver = self._start()
        while time.monotonic() - begun < GIVE_UP:
            self._look()
            code = driver.poll()
            if code == 0:
                return {**self._verdict(), "seconds": round(time.monotonic() - begun, 1)}
            if code is not None:
                driver = self._start()
            time.sleep(0.25)
            if sum(self.kills.values()) < kills and self._waited(driver):
                self._kill(driver)
        driver.kill()
        return {**self._verdict(), "seconds": round(time.monotonic() - begun, 1), "problems": ["it did not end"]}

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        started = (self.out / "job.yaml").exists()
        command = ["resume", str(self.out)] if started else ["search", "job.yaml", "--out", str(self.out)]
        ray = [] if self.cluster is None else ["--ray", self.cluster.address]
        program = [sys.executable, "-m", "kneepoint", *command, *ray]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        output = (self.folder / "output.txt").open("ab")
        with output:
            return subprocess.Popen(program, cwd=self.folder, env=environment, stdout=output, stderr=output)  # noqa: S603

    def _waited(self, driver: subprocess.Popen[bytes]) -> bool:
        """Wait for a random moment of a driver that has measured something; whether it still runs then."""
        before, deadline = len(self.seen), time.monotonic() + 60
        while len(self.seen) == before and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            self._look()
        until = time.monotonic() + self.random.uniform(*PAUSE)
        while time.monotonic() < until and driver.poll() is None:
            time.sleep(0.25)
            self._look()
        return driver.poll() is None

    def _look(self) -> None:
        """Remember every whole line of the log."""
        log = self.out / "trials.jsonl"
        if log.exists():
            for line in log.read_text().split("\n")[:-1]:
                self.seen.setdefault(json.loads(line)["id"], line)

    def _kill(self, driver: subprocess.Popen[bytes]) -> None:
        victim = self.random.choice(["worker", "driver"] + ["node"] * 2 * (self.cluster is not None))
        if victim == "node":
            node = self.random.choice(sorted(self.cluster.worker_nodes, key=lambda one: str(one.node_id)))
            self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.add_node(num_cpus=1)
        elif victim == "driver":
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        elif not _kill_a_worker(self.random):
            return
        self.kills[victim] += 1
        print(f"killed a {victim} after {len(self.seen)} records", flush=True)

    def _verdict(self) -> dict[str, Any]:
        self._look()
        lines = (self.out / "trials.jsonl").read_text().split("\n")[:-1]
        ids = Counter(json.loads(line)["id"] for line in lines)
        problems = [f"{name} is there {count} times" for name, count in ids.items() if count > 1]
        problems += [f"{name} was lost or changed" for name, line in self.seen.items() if line not in set(lines)]
        problems += [] if _front_is_of_log(self.out) else ["the front is not the front of the log"]
        return {
            "on": "processes" if self.cluster is None else "ray",
            "kills": dict(self.kills),
            "starts": self.starts,
            "records": len(lines),
            "failed": sum(json.loads(line)["error"] is not None for line in lines),
            "problems": problems,
        }


def _kill_a_worker(chance: random.Random) -> bool:
    """Kill a worker process, on whichever node; whether there was one."""
    command = ["pgrep", "-f", "kneepoint.search.workers.worker_main"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()  # noqa: S603
    if not found:
        return False
    os.kill(int(chance.choice(found)), signal.SIGKILL)
    return True


def _front_is_of_log(out: Path) -> bool:
    """Whether front.json holds the front, within noise, of the highest fidelity in the log."""
    trials = Trials(_job_of(out), RunDirectory(out))
    best = [record for record in trials.log.records if record.fidelity == "recovered"]
    front = {one.id: one.values for one in trials.front(trials.candidates(best), within_noise=True)}
    shown = {one.id: one.values for one in read_front(RunDirectory(out).read_front())}
    return front == shown


def main() -> int:
    """Kill, resume, and look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, found = random.Random(options.seed), list[dict[str, Any]]()  # noqa: S311 - no secret
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    try:
        while (done := sum(sum(entry["kills"].values()) for entry in found)) < options.kills:
            with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
                search = Search(Path(folder), cluster if len(found) % 2 else None, chance)
                found.append(search.run(min(KILLS_A_SEARCH, options.kills - done)))
                print(json.dumps(found[-1]), flush=True)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray has no annotations there
    problems = sum(len(entry["problems"]) for entry in found)
    kills = sum((Counter(entry["kills"]) for entry in found), Counter())
    content = {"seed": options.seed, "kills": kills, "problems": problems, "searches": found}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{'MISSED ' if problems else 'reached'} {sum(kills.values())} kills {dict(kills)}, {problems} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
