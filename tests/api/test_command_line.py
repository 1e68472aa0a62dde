from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kneepoint.deployment.measuring_process import MeasuringProcess
from kneepoint.search.driver import Driver

Command = Callable[..., Any]


def one_line(err: str) -> str:
    """The last line of standard error, which must be the only error line."""
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    return errors[0]


def test_search_prints_the_front_and_fills_the_directory(command: Command, folder: Path) -> None:
    done = command("search", folder / "job.yaml", "--out", folder / "searched", "--trials", 4)
    assert done.code == 0
    assert "tiny: the front" in done.out
    assert "hypervolume" in done.out
    assert "searching" in done.err
    names = {path.name for path in (folder / "searched").iterdir()}
    assert names >= {"job.yaml", "trials.jsonl", "study.db", "front.json", "students", "artifacts", "report.html"}


def test_inspect_says_what_a_search_would_do_and_writes_nothing(command: Command, folder: Path) -> None:
    before = sorted(folder.iterdir())
    done = command("inspect", folder / "job.yaml")
    assert done.code == 0
    assert done.err == ""
    assert "tiny: before the search" in done.out
    assert "it is an output of the network" in done.out
    assert "only stored, run as int8" in done.out
    assert "A search of 6 trials takes about" in done.out
    assert "stem.0" not in done.out
    assert "stem.0" in command("inspect", folder / "job.yaml", "--verbose").out
    assert sorted(folder.iterdir()) == before


def test_inspect_gives_the_same_as_json(command: Command, folder: Path) -> None:
    done = command("inspect", folder / "job.yaml", "--set", "space.weight_bits=[8]", "--set", "trials=3", "--json")
    facts = json.loads(done.out)
    assert facts["schema"] == "kneepoint.inspection/1"
    assert (facts["space"]["weight_bits"], facts["trials"]) == ([8], 3)
    assert facts["space"]["students"].keys() == {"width=2", "width=4"}
    assert [layer["name"] for layer in facts["layers"]] == ["stem.0", "body", "head"]
    assert [device["name"] for device in facts["devices"]] == ["raspberry-pi-4b"]


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("space.weight_bit=[8]", "did you mean 'weight_bits'"),
        ("objectives=[latency_ms@raspberry-pi-4]", "did you mean 'raspberry-pi-4b'"),
        ("constraints=[size <= 1]", "did you mean 'size_mb'"),
        ("task=tiny_task.py:empty_task", "validation: the loader is empty"),
        ("task=tiny_task.py:untraceable_task", "tiny_task.py:"),
    ],
)
def test_inspect_refuses_what_a_search_would(command: Command, folder: Path, override: str, text: str) -> None:
    done = command("inspect", folder / "job.yaml", "--set", override, "--json")
    assert (done.code, done.out) == (2, "")
    assert text in one_line(done.err)


def test_json_is_all_there_is_on_standard_output(command: Command, finished: Path) -> None:
    done = command("front", finished, "--json")
    content = json.loads(done.out)
    more = {"shown": content["shown"], "rungs": content["rungs"]}
    assert content == {**json.loads((finished / "front.json").read_text()), **more}
    assert content["shown"] == {"device": None, "ids": content["fronts"]["all"]}
    assert done.err == ""


def test_the_front_of_a_device(command: Command, finished: Path) -> None:
    content = json.loads(command("front", finished, "--device", "raspberry-pi-4b", "--json").out)
    assert sorted(content["shown"]["ids"]) == sorted(content["fronts"]["raspberry-pi-4b"])
    refused = command("front", finished, "--device", "raspberry-pi-4")
    assert refused.code == 2
    assert "did you mean 'raspberry-pi-4b'" in one_line(refused.err)


def test_resume_of_a_finished_run_measures_nothing(command: Command, finished: Path) -> None:
    before = (finished / "trials.jsonl").read_bytes(), (finished / "front.json").read_bytes()
    assert command("resume", finished).code == 0
    assert before == ((finished / "trials.jsonl").read_bytes(), (finished / "front.json").read_bytes())


def test_export_of_the_smallest(command: Command, finished: Path, tmp_path: Path) -> None:
    done = command("export", finished, "--pick", "smallest", "--to", tmp_path / "deploy", "--json")
    manifest = json.loads(done.out)
    front = json.loads((finished / "front.json").read_text())
    sizes = {
        entry["id"]: entry["scores"]["size_mb"]["value"]
        for entry in front["candidates"]
        if entry["id"] in front["fronts"]["all"]
    }
    assert manifest["policy_id"] == min(sizes, key=lambda name: sizes[name])
    assert (tmp_path / "deploy" / "model.onnx").stat().st_size == manifest["bytes"]
    assert abs(manifest["executed"]["value"] - manifest["simulated"]["value"]) <= 0.005


def test_export_says_what_it_wrote(command: Command, finished: Path, tmp_path: Path) -> None:
    done = command("export", finished, "--where", "size_mb <= 1", "--to", tmp_path / "deploy")
    assert done.code == 0
    assert "simulated" in done.out
    assert "in ONNX Runtime" in done.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--pick", "ffffffff"), "names no candidate"),
        (("--where", "size_mb <= 0"), "no candidate of the front meets 'size_mb <= 0'; nearest:"),
        (("--where", "size <= 1"), "did you mean 'size_mb'"),
        (("--target", "onnxruntim"), "did you mean 'onnxruntime'"),
    ],
)
def test_export_refuses(
    command: Command, finished: Path, tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    done = command("export", finished, *arguments, "--to", tmp_path / "deploy")
    assert done.code == 2
    assert text in one_line(done.err)
    assert not (tmp_path / "deploy").exists()


def test_report_is_written(command: Command, finished: Path) -> None:
    (finished / "report.html").unlink()
    assert command("report", finished).out.strip() == str(finished / "report.html")
    assert (finished / "report.html").stat().st_size > 1e6


def test_measure_times_and_scores(command: Command, finished: Path, folder: Path) -> None:
    (model, *_) = (finished / "artifacts").glob("*.onnx")
    reference = f"{folder / 'tiny_task.py'}:task"
    facts = json.loads(command("measure", model, "--seconds", "0.05", "--task", reference, "--json").out)
    assert facts["bytes"] == model.stat().st_size
    assert 0 < facts["low_ms"] <= facts["median_ms"] <= facts["high_ms"]
    assert facts["noise"].keys() >= {"noisy", "verdict"}
    assert not facts["interrupted"]
    manifest = json.loads(model.with_suffix(".json").read_text())
    assert facts["score"] == manifest["executed"]
    shown = command("measure", model, "--seconds", "0.05", "--task", reference, "--split", "test")
    assert "accuracy on test" in shown.out
    assert "median" in shown.out
    assert "the machine was" in shown.out.lower()
    assert shown.err == ""  # no progress where nobody watches


def test_measure_compares_two_models(command: Command, finished: Path) -> None:
    (model, *_) = (finished / "artifacts").glob("*.onnx")
    facts = json.loads(command("measure", model, model, "--seconds", "0.05", "--json").out)
    assert [one["model"] for one in facts["models"]] == [str(model)] * 2
    assert facts["ratio"]["low"] <= facts["ratio"]["value"] <= facts["ratio"]["high"]
    assert facts["verdict"]
    assert len(command("measure", model, model, "--seconds", "0.05").out.splitlines()) == 5


@pytest.mark.parametrize("rounds", [3, 8])
def test_an_interrupted_measurement_shows_what_it_has_if_that_suffices(
    command: Command, finished: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    (model, *_) = (finished / "artifacts").glob("*.onnx")
    asked, original = [], MeasuringProcess.round

    def interrupted(self: MeasuringProcess, seconds: float) -> dict[str, list[float]]:
        asked.append(seconds)
        if len(asked) > rounds:
            raise KeyboardInterrupt
        return original(self, 1e-3)

    monkeypatch.setattr(MeasuringProcess, "round", interrupted)
    monkeypatch.setattr("kneepoint.deployment.measuring.TIGHT", 0.0)
    done = command("measure", model, "--json")
    assert done.code == 130
    assert done.err.startswith("interrupted")
    assert done.err.count("\n") == 1
    if rounds == 8:
        facts = json.loads(done.out)
        assert (facts["rounds"], facts["interrupted"]) == (8, True)
    else:
        assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("front", "nowhere"), "there is no front in nowhere"),
        (("report", "nowhere"), "nowhere"),
        (("resume", "nowhere"), "there is none in nowhere"),
        (("measure", "nowhere.onnx"), "there is none at nowhere.onnx"),
        (("measure", "nowhere.onnx", "--threads", "0"), "--threads"),
        (("measure", "nowhere.onnx", "--threads", "4096"), "a core for every thread"),
        (("measure", "nowhere.onnx", "--size", "width"), "--size reads NAME=N"),
        (("measure", "nowhere.onnx", "--size", "width=0"), "--size reads NAME=N"),
        (("search", "nowhere.yaml"), "there is no job file nowhere.yaml"),
        (("devices", "show", "raspbery-pi-4b"), "did you mean 'raspberry-pi-4b'"),
        (("devices", "show", "this-machine"), "devices calibrate"),
        (("devices", "estimate", "x86-server", "nowhere.onnx"), "nowhere.onnx"),
        (("frond", "x"), "No such command"),
        (("front",), "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command: Command, arguments: tuple[str, ...], text: str) -> None:
    done = command(*arguments)
    assert done.code == 2
    assert text in one_line(done.err)
    assert done.out == ""


def test_debug_adds_the_traceback(command: Command) -> None:
    assert "Traceback" not in command("front", "nowhere").err
    assert "Traceback" in command("--debug", "front", "nowhere").err


def test_an_unexpected_error_is_one_line_too(command: Command, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("kneepoint.command_line.show_front", fails)
    done = command("front", finished)
    assert done.code == 1
    assert one_line(done.err) == "error: ZeroDivisionError: two lines (--debug shows where)"


def test_an_interrupt_exits_with_130_and_names_the_way_on(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Driver.run

    def interrupted(self: Driver) -> None:
        original(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Driver, "run", interrupted)
    done = command("search", folder / "job.yaml", "--out", folder / "interrupted", "--trials", 2)
    assert done.code == 130
    assert "kneepoint resume" in done.err
    assert (folder / "interrupted" / "report.html").exists()


def test_devices_are_listed_shown_and_estimated(command: Command, finished: Path) -> None:
    listed = json.loads(command("devices", "list", "--json").out)
    assert {"raspberry-pi-4b", "x86-server"} <= {entry["name"] for entry in listed}
    assert "raspberry-pi-4b" in command("devices", "list").out
    shown = json.loads(command("devices", "show", "raspberry-pi-4b", "--json").out)
    assert shown["sources"].keys() >= {"rates", "bandwidth_gb_s"}
    assert "MLPerf" in command("devices", "show", "raspberry-pi-4b").out
    (model, *_) = (finished / "artifacts").glob("*.onnx")
    estimates = {
        threads: json.loads(
            command("devices", "estimate", "raspberry-pi-4b", model, "--threads", threads, "--json").out
        )
        for threads in (1, 4)
    }
    assert estimates[1]["latency_ms"] > estimates[4]["latency_ms"]
    sizes = {"peak_memory_bytes", "storage_bytes", "reserved_memory_bytes"}
    costs = {"latency_ms", "latency_ms_error", "energy_mj", "energy_mj_error", "transfer_ms"}
    assert estimates[4].keys() == {"device", "coverage", "fits", "misfits", "kernels", "unpriced"} | costs | sizes
    assert (estimates[4]["fits"], estimates[4]["misfits"]) == (True, [])
    front = json.loads((finished / "front.json").read_text())
    member = next(entry for entry in front["candidates"] if entry["artifact"] == f"artifacts/{model.name}")
    predicted = member["scores"]["latency_ms@raspberry-pi-4b"]["value"]
    assert estimates[4]["latency_ms"] == pytest.approx(predicted)
    assert estimates[4]["storage_bytes"] == pytest.approx(1e6 * member["scores"]["size_mb"]["value"])
    assert "coverage 100%" in command("devices", "estimate", "raspberry-pi-4b", model).out


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "kneepoint", "--help"], capture_output=True, text=True, check=True)
    assert "quickstart" in done.stdout
