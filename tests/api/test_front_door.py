from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

import kneepoint as kp
from kneepoint.front_door import export_from, open_front, resume
from kneepoint.tasks.errors import InputError, JobError, RunError

ROOT = Path(__file__).parents[2]
FAST = kp.CompressionSettings(
    student=kp.Distillation(steps=10, learning_rate=1e-3), recovery=kp.Distillation(steps=3, learning_rate=1e-3)
)


@pytest.fixture(scope="module")
def user(folder: Path) -> ModuleType:
    """The user's module."""
    spec = importlib.util.spec_from_file_location("tiny_user", folder / "tiny_task.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_user"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def result(user: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> kp.Result:
    """A search through Python, with a function and a class as objectives."""

    class Depth(kp.Objective):
        name = "layers_in_8_bits"
        direction = "minimize"

        def score(self, view: kp.View) -> kp.Score:
            return kp.Score(float(sum(layer.weight_bits == 8 for _, layer in view.policy.layers)))

    task = user.task()
    space = kp.joint_space(task, students=None)
    objectives = [kp.Accuracy(), kp.Latency("x86-server"), kp.Size(), user.share_of_zero, Depth()]
    out = tmp_path_factory.mktemp("python") / "run"
    return kp.search(task, space, objectives, trials=5, out=out, settings=FAST, progress=False)


def test_the_front_holds_every_objective(result: kp.Result) -> None:
    names = {"accuracy", "latency_ms@x86-server", "size_mb", "share_of_zero", "layers_in_8_bits"}
    assert len(result.front) >= 1
    assert all(candidate.scores.keys() == names for candidate in result.front)
    assert result.fronts.keys() == {"x86-server"}
    assert len(result.front.to_frame()) == len(result.front)
    assert {"teacher fp32", "uniform 8-bit", "random policies"} <= result.baselines.keys()


def test_export_of_a_candidate(result: kp.Result, tmp_path: Path) -> None:
    artifact = kp.export(result.front.pick("knee"), tmp_path / "deploy")
    assert artifact.parity.executed.value == pytest.approx(artifact.parity.simulated.value, abs=0.005)
    manifest = json.loads((tmp_path / "deploy" / "manifest.json").read_text())
    assert manifest["scores"]["size_mb"] == result.front.knee().scores["size_mb"].to_json()


def test_a_front_read_from_disk_equals_the_live_one(result: kp.Result) -> None:
    front = open_front(result.directory)
    assert list(front) == list(result.front)
    assert front.hypervolume == pytest.approx(result.front.hypervolume)
    with pytest.raises(InputError, match="cannot be rebuilt"):
        kp.export(front.knee(), result.directory / "nowhere")


def test_the_same_call_goes_on_with_its_run(result: kp.Result, user: ModuleType) -> None:
    with pytest.raises(JobError, match="only the same"):
        resume(result.directory, progress=False)
    task = user.task()
    with pytest.raises(RunError, match="objectives differs"):
        kp.search(task, kp.joint_space(task, students=None), ["accuracy"], out=result.directory)


def test_export_from_a_run_of_a_file(finished: Path, tmp_path: Path) -> None:
    artifact = export_from(finished, "most-accurate", None, "onnxruntime", tmp_path / "deploy")
    best = max(candidate.values["accuracy"] for candidate in open_front(finished))
    assert artifact.parity.simulated.value == pytest.approx(best)


def test_the_same_seed_gives_the_same_front(folder: Path, finished: Path, tmp_path: Path) -> None:
    from kneepoint.front_door import run_file

    run_file(folder / "job.yaml", tmp_path / "again", progress=False)
    assert (tmp_path / "again" / "front.json").read_text() == (finished / "front.json").read_text()


def test_a_cluster_that_is_not_there_is_named(user: ModuleType, tmp_path: Path) -> None:
    task = user.task()
    space = kp.joint_space(task, students=None)
    with pytest.raises(JobError, match=r"there is no Ray cluster at '127\.0\.0\.1:1': .*; start one with 'ray start"):
        kp.search(task, space, ["accuracy"], ray="127.0.0.1:1", out=tmp_path / "run", progress=False)


def test_the_example_runs(tmp_path: Path) -> None:
    script = ROOT / "examples" / "own_network.py"
    command = [sys.executable, str(script), "--trials", "6", "--out", "run", "--deploy", "deploy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "in ONNX Runtime" in done.stdout
    assert (tmp_path / "deploy" / "model.onnx").exists()


def test_inspect_of_a_bare_task_shows_itself(user: ModuleType) -> None:
    found = kp.inspect(user.task())
    assert repr(found).startswith("tiny: before the search")
    assert found.devices == ()
    assert {"separable=0,width=0.25", "separable=0,width=0.5"} < found.space.students.keys()
    assert found.trials == 100


def test_inspect_takes_a_space_and_devices(user: ModuleType) -> None:
    task = user.task()
    space = kp.joint_space(task, weight_bits=(8,), students=None)
    found = kp.inspect(task, space, ["x86-server", kp.load_device("raspberry-pi-4b")], trials=7)
    assert [device.name for device in found.devices] == ["x86-server", "raspberry-pi-4b"]
    assert (found.trials, found.space.weight_bits, found.space.students) == (7, (8,), {})


def test_inspect_of_a_network_without_groups_has_no_students(user: ModuleType) -> None:
    task = user.task()
    task.model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    assert kp.inspect(task).space.students == {}


def test_inspect_refuses_what_it_cannot_use(user: ModuleType) -> None:
    with pytest.raises(InputError, match=r"inspect takes a kneepoint\.Task; got int"):
        kp.inspect(3)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(InputError, match="devices is a list; got 'x86-server'"):
        kp.inspect(user.task(), devices="x86-server")
    with pytest.raises(InputError, match="did you mean 'x86-server'"):
        kp.inspect(user.task(), devices=["x86-serve"])
    with pytest.raises(InputError, match="trials is a whole number of at least 1; got 0"):
        kp.inspect(user.task(), trials=0)
    other = kp.joint_space(user.task(), students=None)
    with pytest.raises(InputError, match="the space is of another task"):
        kp.inspect(user.task(), other)
