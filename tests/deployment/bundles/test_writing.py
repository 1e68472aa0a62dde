"""A bundle that is written, run as on a device, and imported."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from kneepoint.deployment import device_program
from kneepoint.deployment.bundles import import_results, importing, write_bundle
from kneepoint.deployment.bundles.writing import digest_of
from kneepoint.hardware_models.devices import load_device
from kneepoint.tasks.errors import DeviceError


@pytest.fixture(scope="module", autouse=True)
def _few_probes() -> Iterator[None]:
    """Every probe takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kneepoint.deployment.calibration.probing.PROBES", 9)
        yield


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "few", 20, few=True).folder


@pytest.fixture
def bundle(few: Path, tmp_path: Path) -> Path:
    """A copy, as it lies on a device."""
    return Path(shutil.copytree(few, tmp_path / "bundle"))


def run(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As on a device: no package but NumPy and ONNX Runtime is imported."""
    command = [sys.executable, "-P", "run.py", *arguments]
    return subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_bundle_holds_networks_a_plan_a_program_and_a_page(few: Path) -> None:
    assert sorted(path.name for path in few.iterdir()) == ["README.txt", "networks", "plan.json", "run.py"]
    plan = json.loads((few / "plan.json").read_text())
    assert (plan["schema"], plan["seed"], plan["count"]) == ("kneepoint.bundle/1", 0, 20)
    assert set(plan["versions"]) == {"numpy", "onnx", "onnxruntime"}
    for entry in [*plan["networks"], *plan["probes"], plan["reference"]]:
        assert hashlib.sha256((few / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert plan["digest"] == digest_of([entry["sha256"] for entry in plan["networks"]])
    assert "devices import results.jsonl" in (few / "README.txt").read_text()


def test_the_program_is_python_3_8_and_imports_nothing_else(few: Path) -> None:
    tree = ast.parse((few / "run.py").read_text(), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert roots - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_what_it_measures_is_imported_and_an_interrupted_run_goes_on(bundle: Path) -> None:
    program = subprocess.Popen([sys.executable, "-P", "run.py"], cwd=bundle, stderr=subprocess.PIPE, text=True)
    results = bundle / "results.jsonl"
    while not results.exists() or sum("network" in line for line in results.read_text().splitlines()) < 9:
        assert program.poll() is None
        time.sleep(0.02)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate()
    assert program.returncode in (130, 0)
    assert program.returncode == 0 or "interrupted; the same command goes on" in said
    with results.open("a") as stream:
        stream.write('{"kind": "network", "netw')  # a power cut in the middle of a line
    done = run(bundle)
    assert done.returncode == 0, done.stderr
    assert "20 timings; all is measured" in done.stderr
    lines = lines_of(results)
    assert [line["kind"] for line in lines[1:]].count("network") == 20
    assert len({(line["kind"], line["network"]) for line in lines[1:]}) == len(lines) - 1
    assert all(line["nodes"] for line in lines[1:] if line["kind"] == "probe")
    assert lines[0]["onnxruntime"] == onnxruntime.__version__
    imported = import_results(results, "here")
    assert load_device("here").fusion == imported.device.fusion
    assert imported.networks == {1: 20}
    assert run(bundle).returncode == 0  # nothing is left to do
    assert lines_of(results) == lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "thread counts are between 1 and the"),
        (["--threads", "9999"], "got [9999]"),
        (["--minutes", "-1"], "--minutes is above 0; got -1.0"),
        (["--out", "README.txt"], "README.txt holds something other than results; name another file with --out"),
    ],
)
def test_the_program_refuses_in_one_line(
    bundle: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(bundle)
    assert device_program.main(arguments, bundle) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_program_notices_what_was_damaged(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "networks" / "0000.onnx").write_bytes(b"")
    assert device_program.main(["--no-profile"], bundle) == 2
    assert "0000.onnx is damaged (its SHA-256 is another); copy the bundle again" in capsys.readouterr().err
    (bundle / "plan.json").write_text('{"schema": "kneepoint.bundle/9"}')
    assert device_program.main([], bundle) == 2
    assert "plan.json is of the schema kneepoint.bundle/1; got 'kneepoint.bundle/9'" in capsys.readouterr().err
    os.unlink(bundle / "plan.json")
    assert device_program.main([], bundle) == 2
    assert "needs a plan.json beside run.py" in capsys.readouterr().err


def test_results_of_another_machine_are_not_gone_on_with(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = device_program.read_plan(bundle)
    header = {"schema": "kneepoint.results/1", "onnxruntime": "1.0.0", "plan": {"digest": plan["digest"]}}
    (bundle / "results.jsonl").write_text(json.dumps(header) + "\n")
    assert device_program.main([], bundle) == 2
    assert "holds results of another bundle, machine or onnxruntime" in capsys.readouterr().err


def test_profiles_are_fitted_as_a_calibration_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a runtime that blocks no channels, as on another processor: the probes say so."""
    monkeypatch.setattr(importing, "FEWEST_TO_FIT", 15)
    monkeypatch.setattr("kneepoint.deployment.bundles.measured.SLOW", float("inf"))  # tests run side by side
    options = device_program.session_options

    def extended(threads: int, others: list[int]) -> Any:
        chosen = options(threads, others)
        chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        return chosen

    monkeypatch.setattr(device_program, "session_options", extended)
    folder = write_bundle(tmp_path / "profiled", 20).folder
    assert device_program.main(["--out", str(tmp_path / "board.jsonl")], folder) == 0
    imported = import_results(tmp_path / "board.jsonl")
    assert imported.method == "fitted"
    assert imported.device.calibration is not None
    assert imported.device.fusion == ("activation",)
    assert imported.errors["1"]["kernels"] > 0
    assert load_device("board").digest == imported.device.digest


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"networks": 5}, "20 to 5000 networks; got 5"),
        ({"networks": 500, "few": True}, "20 to 100 networks; got 500"),
        ({"threads": (0,)}, r"between 1 and 1024; got \[0\]"),
        ({"threads": ()}, r"between 1 and 1024; got \[\]"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path: Path, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        write_bundle(tmp_path / "new", **keywords)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DeviceError, match=r"a new or an empty folder; .* holds something"):
        write_bundle(tmp_path)
