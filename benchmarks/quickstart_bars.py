"""Runs the quickstart as a user would and holds its run directory against the project's bars.

    python benchmarks/quickstart_bars.py                one run, about four minutes
    python benchmarks/quickstart_bars.py --runs 2       and the same seed again: the same front.json
    python benchmarks/quickstart_bars.py --check DIR    the bars alone, on a run that is there

Exit code 0 where every bar is reached. Figures go to benchmarks/results/quickstart.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "quickstart.json"
STUDENTS = (
    "half-width student fp32",
    "half-width student 8-bit",
    "quarter-width student fp32",
    "quarter-width student 8-bit",
)
BASELINES = ("teacher fp32", "uniform 8-bit", "uniform 4-bit", "random policies", *STUDENTS)


@dataclass(frozen=True)
class Bar:
    """One thing that must be true.

    Attributes:
        name: What.
        reached: Whether it is.
        figure: What was measured.
    """

    name: str
    reached: bool
    figure: str


def run_quickstart(out: Path, cache: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole run with an empty cache (the teacher is trained too), and the facts it prints."""
    start = time.monotonic()
    command = [sys.executable, "-m", "kneepoint", "quickstart", "--out", str(out), "--json"]
    environment = {**os.environ, "KNEEPOINT_CACHE": str(cache)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)  # noqa: S603 - ours
    facts: dict[str, Any] = json.loads(done.stdout)
    return time.monotonic() - start, facts


def front_bars(front: dict[str, Any]) -> Iterator[Bar]:
    """What the front itself must hold."""
    members = [entry for entry in front["candidates"] if entry["id"] in front["fronts"]["all"]]
    students = {json.dumps(entry["policy"]["student"]) for entry in members}
    mixes = {tuple(layer["weight_bits"] for layer in entry["policy"]["layers"].values()) for entry in members}
    pruned = [entry["id"] for entry in members if entry["policy"]["keep"]]
    yield Bar("at least 6 candidates", len(members) >= 6, str(len(members)))
    yield Bar("none dominates another", not any(_dominates(a, b, front) for a in members for b in members), "")
    yield Bar("at least 2 architectures", len(students) >= 2, ", ".join(sorted(students)))
    yield Bar("at least 2 bit-width mixes", len(mixes) >= 2, str(len(mixes)))
    yield Bar("at least 1 pruned", bool(pruned), str(len(pruned)))
    yield Bar("all at the highest fidelity", {entry["fidelity"] for entry in members} == {"recovered"}, "")
    gaps = [abs(entry["executed"]["accuracy"]["value"] - entry["scores"]["accuracy"]["value"]) for entry in members]
    yield Bar(
        "ONNX Runtime within 0.5 point, every member", max(gaps) <= 0.005, f"largest {100 * max(gaps):.3f} points"
    )


def baseline_bars(front: dict[str, Any]) -> Iterator[Bar]:
    """The front against every simple answer, and against all of them together."""
    for name in (*BASELINES, "all baselines"):
        volume = front["baselines"][name]["hypervolume"]
        figure = f"{front['hypervolume']:.4f} against {volume:.4f}"
        yield Bar(f"hypervolume above {name}", front["hypervolume"] > volume, figure)


def _without_paths(model: dict[str, Any]) -> dict[str, Any]:
    """The facts of a model, without where it lay."""
    kept = {key: value for key, value in model.items() if key != "path"}
    executed = {key: value for key, value in kept["executed"].items() if key != "model"}
    return {**kept, "executed": executed}


def deploy_bars(facts: dict[str, Any]) -> Iterator[Bar]:
    """The exported knee against the exported fp32 teacher, real bytes and the test data."""
    teacher, knee = facts["models"].values()
    ratio = teacher["bytes"] / knee["bytes"]
    drop = teacher["test"]["value"] - knee["test"]["value"]
    yield Bar("knee at least 4 times smaller on disk", ratio >= 4, f"{ratio:.1f} times ({knee['bytes']} bytes)")
    yield Bar("knee within 1.5 points of the teacher's test accuracy", drop <= 0.015, f"{100 * drop:.2f} points")


def _dominates(a: dict[str, Any], b: dict[str, Any], front: dict[str, Any]) -> bool:
    signs = {entry["name"]: 1 if entry["direction"] == "minimize" else -1 for entry in front["objectives"]}
    first = [sign * a["scores"][name]["value"] for name, sign in signs.items()]
    second = [sign * b["scores"][name]["value"] for name, sign in signs.items()]
    return first != second and all(x <= y for x, y in zip(first, second, strict=True))


def _show(bars: list[Bar]) -> bool:
    for bar in bars:
        print(f"{'reached' if bar.reached else 'MISSED '}  {bar.name}: {bar.figure}")
    return all(bar.reached for bar in bars)


def main() -> int:
    """Run, hold against the bars, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    if arguments.check:
        front = json.loads((arguments.check / "front.json").read_text())
        return 0 if _show([*front_bars(front), *baseline_bars(front)]) else 1
    texts, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.runs):
            took, facts = run_quickstart(Path(folder) / f"run{number}", Path(folder) / f"cache{number}")
            texts.append((Path(folder) / f"run{number}" / "front.json").read_text())
            seconds.append(round(took, 1))
    front = json.loads(texts[0])
    bars = [*front_bars(front), *baseline_bars(front), *deploy_bars(facts)]
    bars.append(Bar("at most 5 minutes", max(seconds) <= 300, f"{seconds} s on {os.cpu_count()} cores"))
    if len(texts) > 1:
        bars.append(Bar("the same seed gives the same front.json", len(set(texts)) == 1, f"{len(texts)} runs"))
    RESULTS.parent.mkdir(exist_ok=True)
    figures = {name: _without_paths(model) for name, model in facts["models"].items()}
    content = {"bars": [asdict(bar) for bar in bars], "models": figures, "hypervolume": front["hypervolume"]}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if _show(bars) else 1


if __name__ == "__main__":
    sys.exit(main())
