"""The main job on scikit-learn's digits, told step by step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from kneepoint.deployment import runtime
from kneepoint.deployment.exporting import Artifact
from kneepoint.front_door import export, run_job
from kneepoint.job_file import JobFile, parse_job, resolve_job
from kneepoint.reports import RunView, front_table, summary_lines
from kneepoint.search.driver import Result
from kneepoint.search.job import Job
from kneepoint.search.trials import TEACHER
from kneepoint.tasks import digits

TASK = "kneepoint.tasks.digits:task"
JOB: dict[str, Any] = {
    "task": TASK,
    "space": {
        "weight_bits": [2, 4, 8, 16],
        "keep": [1.0, 0.75, 0.5, 0.25],
        "students": {
            "build": "kneepoint.tasks.digits:build_student",
            "axes": {"depth": [1, 2], "width": [0.25, 0.5, 0.75]},
        },
    },
    "objectives": ["accuracy", "latency_ms@raspberry-pi-4b", "latency_ms@x86-server", "size_mb"],
    "constraints": ["accuracy_drop <= 0.0175"],
    "sampler": "kneepoint",
    "trials": 120,
    "seed": 0,
    "threads": 1,
    "training": {
        "student_steps": 800,
        "student_learning_rate": digits.STUDENT_LEARNING_RATE,
        "recovery_steps": 250,
        "recovery_learning_rate": 1.5e-3,
    },
}
"""What ``kneepoint quickstart`` runs; ``job.yaml`` of its run directory shows it resolved."""


def run_quickstart(out: Path, trials: int | None = None, as_json: bool = False) -> None:
    """Train or load the teacher, search, show the front, export the knee and check it in a fresh process.

    Args:
        out: The run directory.
        trials: Another budget than the quickstart's own.
        as_json: Print the facts as JSON on standard output, and nothing else there.
    """
    start = time.monotonic()
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    say("[bold]1/4[/] the teacher: a residual convolutional network on scikit-learn's digits (trained once)")
    job = _job(trials, say)
    say(f"[bold]2/4[/] the search: {job.trials} candidates out of {job.space.size:.1e}, in {out}")
    result = run_job(job, out)
    view = RunView.read(out)
    say("[bold]3/4[/] the front beside its baselines")
    if not as_json:
        Console().print(front_table(view))
        for line in summary_lines(view):
            Console(soft_wrap=True, highlight=False).print(line, markup=False)
    say("[bold]4/4[/] the knee as ONNX with integer weights, checked in a fresh process")
    facts = _deploy(result, out)
    facts["seconds"] = round(time.monotonic() - start, 1)
    _tell(facts, out, as_json)


def _job(trials: int | None, say: Any) -> Job:
    task = digits.task(progress=_progress(say))
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    clean = digits.clean_test_accuracy(task.model)
    perturbed = task.metric.score(*task.predict(task.model, split="test"))
    say(
        f"    {parameters:,} parameters; accuracy {clean:.4f} on the 360 clean test images, {perturbed.value:.4f} "
        f"± {perturbed.error:.4f} on 3,600 perturbed ones"
    )
    content: JobFile = parse_job({**JOB, "trials": trials or JOB["trials"]}, "quickstart")
    return resolve_job(content, Path.cwd(), task)


def _progress(say: Any) -> Any:
    def progress(done: int, total: int, loss: float) -> None:
        if done % 500 == 0:
            say(f"    step {done} of {total}, loss {loss:.3f}")

    return progress


def _deploy(result: Result, out: Path) -> dict[str, Any]:
    """Export teacher and knee, and measure both where nothing of this process can help them."""
    knee = result.front.knee()
    (teacher,) = result.baselines[TEACHER]
    exported = {
        TEACHER: export(teacher, out / "deploy" / "teacher"),
        f"knee {knee.id[:8]}": export(knee, out / "deploy" / "knee"),
    }
    return {
        "knee": knee.id,
        "policy": knee.policy.to_json(),
        "models": {name: _facts(artifact) for name, artifact in exported.items()},
    }


def _facts(artifact: Artifact) -> dict[str, Any]:
    return {
        "path": str(artifact.path),
        "bytes": artifact.bytes,
        "simulated": artifact.parity.simulated.to_json(),
        "executed": _in_fresh_process(artifact.path),
        "test": runtime.score(runtime.open_session(artifact.path), digits.task(), "test").to_json(),
    }


def _in_fresh_process(model: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "kneepoint", "measure", str(model), "--task", TASK, "--json"]
    done = subprocess.run([*command, "--seconds", "0.5"], check=True, capture_output=True, text=True)  # noqa: S603 - our own program
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def _tell(facts: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    write = Console(soft_wrap=True, highlight=False).print
    for name, model in facts["models"].items():
        executed = model["executed"]
        write(
            f"{name}: {model['bytes'] / 1e3:.1f} kB on disk; accuracy {model['simulated']['value']:.4f} simulated, "
            f"{executed['score']['value']:.4f} in ONNX Runtime; {model['test']['value']:.4f} on the test data; "
            f"{executed['median_ms']:.3f} ms on this machine, one thread"
        )
    first, second = (model["bytes"] for model in facts["models"].values())
    write(f"the knee is {first / second:.1f} times smaller on disk; everything took {facts['seconds']:.0f} s")
    write(f"look at {out / 'report.html'}; deploy {out / 'deploy' / 'knee' / 'model.onnx'}")
