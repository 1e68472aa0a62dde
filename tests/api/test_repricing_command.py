"""``kneepoint front`` and ``export`` on devices that a run did not know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import kneepoint
from kneepoint.hardware_models.devices import SHIPPED
from tests.api.conftest import Command


@pytest.fixture
def orphan(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run whose task cannot be loaded any more."""
    path = Path(shutil.copytree(finished, tmp_path / "run"))
    job = yaml.safe_load((path / "job.yaml").read_text())
    (path / "job.yaml").write_text(yaml.safe_dump({**job, "task": str(tmp_path / "gone.py") + ":task"}))
    return path


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    return text


def test_a_new_device_has_its_front_without_any_code_of_the_user(command: Command, orphan: Path) -> None:
    done = command("front", orphan, "--device", "x86-server", "--json")
    content, own = json.loads(done.out), json.loads((orphan / "front.json").read_text())
    assert done.code == 0
    assert content.keys() == {*own, "shown", "rungs", "repriced"}
    assert content["schema"] == own["schema"]
    assert content["shown"] == {"device": "x86-server", "ids": content["fronts"]["x86-server"]}
    assert [entry["name"] for entry in content["objectives"]] == ["accuracy", "latency_ms@x86-server", "size_mb"]
    assert content["repriced"]["device"] == "x86-server"
    assert all(entry["scores"]["latency_ms@x86-server"]["error"] > 0 for entry in content["candidates"])
    assert "measured as 'recovered' on x86-server; nothing was measured anew" in done.err


def test_it_is_shown_as_a_table(command: Command, orphan: Path) -> None:
    done = command("front", orphan, "--device", "x86-server", "--fidelity", "ptq")
    assert "tiny: the front of x86-server" in done.out
    assert "all baselines" in done.out
    assert "raspberry" not in done.out


def test_a_device_may_be_a_file(command: Command, orphan: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((SHIPPED / "raspberry-pi-4b.yaml").read_text())
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**content, "name": "mine", "memory": {"limit_mb": 1e-6}}))
    done = command("front", orphan, "--device", path, "--json")
    assert json.loads(done.out)["fronts"] == {"all": [], "mine": []}
    assert "of RAM of mine" in done.err
    assert command("front", orphan, "--device", path).code == 0


def test_an_unknown_device_names_those_of_the_run(command: Command, orphan: Path) -> None:
    done = command("front", orphan, "--device", "x86-serve")
    assert (done.code, done.out) == (2, "")
    assert "did you mean 'x86-server'" in one_line(done.err)
    assert "the run itself is about raspberry-pi-4b" in done.err


def test_what_is_asked_of_no_device_or_fidelity_is_refused(command: Command, orphan: Path) -> None:
    assert "give it with --device" in one_line(command("front", orphan, "--fidelity", "ptq").err)
    unknown = command("front", orphan, "--device", "x86-server", "--fidelity", "best")
    assert unknown.code == 2
    assert "fidelity is one of" in one_line(unknown.err)


def test_an_old_run_needs_its_task_and_says_so(command: Command, finished: Path, orphan: Path) -> None:
    shutil.rmtree(orphan / "workloads")
    done = command("front", orphan, "--device", "x86-server")
    assert (done.code, done.out) == (2, "")
    assert "loading the task to trace it" in done.err.splitlines()[0]
    assert "cannot be loaded: there is no file" in done.err.splitlines()[1]
    shutil.copy(finished / "job.yaml", orphan / "job.yaml")
    assert command("front", orphan, "--device", "x86-server").code == 0
    assert (orphan / "workloads").is_dir()


def test_export_picks_from_the_front_of_a_new_device(command: Command, finished: Path, tmp_path: Path) -> None:
    front = kneepoint.open_front(finished, "x86-server")
    wanted = front.pick("fastest")
    bound = wanted.values["latency_ms@x86-server"] * 1.0001
    by_device = command(
        "export", finished, "--device", "x86-server", "--pick", "fastest", "--to", tmp_path / "a", "--json"
    )
    by_condition = command(
        "export",
        finished,
        "--pick",
        "knee",
        "--where",
        f"latency_ms@x86-server <= {bound}",
        "--to",
        tmp_path / "b",
        "--json",
    )
    for done in (by_device, by_condition):
        assert done.code == 0, done.err
        assert json.loads(done.out)["scores"]["latency_ms@x86-server"]["value"] <= bound
    two = command("export", finished, "--where", "latency_ms@a <= 1 and latency_ms@b <= 1", "--to", tmp_path / "c")
    assert "names one device that the run did not know; got a, b" in one_line(two.err)


def test_the_fronts_of_a_run_on_disk(finished: Path) -> None:
    own = kneepoint.open_front(finished, "raspberry-pi-4b")
    assert [one.id for one in own] == [one.id for one in kneepoint.open_front(finished).for_device("raspberry-pi-4b")]
    assert "latency_ms@x86-server" in kneepoint.open_front(finished, "x86-server")[0].values


def test_what_does_not_fit_is_said_before_and_without_a_search(
    command: Command, finished: Path, folder: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load((SHIPPED / "raspberry-pi-4b.yaml").read_text())
    path = tmp_path / "mcu.yaml"
    path.write_text(yaml.safe_dump({**content, "name": "mcu", "memory": {"limit_mb": 1.0, "flash_mb": 0.0001}}))
    (model, *_) = (finished / "artifacts").glob("*.onnx")
    facts = json.loads(command("devices", "estimate", path, model, "--json").out)
    assert facts["fits"] is False
    assert facts["misfits"][0].endswith("MB of the 0.0001 MB of flash of mcu")
    assert f"does not fit: {facts['misfits'][0]}" in command("devices", "estimate", path, model).out
    objectives = f"objectives=[accuracy, 'latency_ms@{path}']"
    found = command("inspect", folder / "job.yaml", "--set", objectives)
    assert "the teacher does not fit mcu at 2, 4, 8, 16 and 32 bits: constants take" in found.out
    told = json.loads(command("inspect", folder / "job.yaml", "--set", objectives, "--json").out)
    assert all(entry["misfits"] for entry in told["devices"][0]["formats"])
