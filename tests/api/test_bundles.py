from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kneepoint.command_line import app
from kneepoint.deployment.bundles.plan import Plan
from kneepoint.hardware_models.devices import load_device

HEADER = {
    "schema": "kneepoint.results/1",
    "plan": {"seed": 0, "few": True, "count": 20, "digest": "0" * 64},
    "kneepoint": "0.1.0",
    "onnxruntime": "1.31.1",
    "numpy": "2.0.0",
    "python": "3.8.10",
    "machine": {
        "architecture": "aarch64",
        "system": "Linux",
        "processor": "Cortex-A72",
        "cores": 4,
        "memory_mb": 4000.0,
        "bandwidth_gb_s": 5.0,
        "caches": [],
        "saturates": False,
        "governor": None,
    },
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / "data" / name)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "board.jsonl"
    measured = {"threads": 1, "runs": 40, "spread": 0.01, "slowdown": 1.0, "tries": 1, "nodes": None, "seconds": 0.1}
    lines = [
        {"kind": "network", "network": one.number, "sha256": one.sha256, "us": 500.0 + one.number, **measured}
        for one in Plan(0, 20, few=True).networks()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in (HEADER, *lines)))
    return path


def test_a_bundle_says_what_to_do_with_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["devices", "bundle", str(tmp_path / "b"), "--few", "--networks", "20", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["networks"], facts["few"], facts["seed"]) == (20, True, 0)
    assert (tmp_path / "b" / "run.py").is_file()
    again = CliRunner().invoke(app, ["devices", "bundle", str(tmp_path / "b"), "--few"])
    assert again.exit_code == 2
    assert again.stderr.startswith("error: a bundle is written to a new or an empty folder")


def test_results_become_a_device(results: Path) -> None:
    done = CliRunner().invoke(app, ["devices", "import", str(results), "--name", "board", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["method"] == "adapted"
    assert facts["base"] in facts["candidates"]
    assert load_device("board").relative_error == facts["relative_error"]
    said = CliRunner().invoke(app, ["devices", "import", str(results), "--name", "board", "--replace"]).stdout
    assert f"adapted from {facts['base']}; networks: 20 on 1 thread(s)" in said
    assert "cross-validated over kinds of networks: mean error" in said
    assert "note: no probe was looked at" in said


@pytest.mark.parametrize("content", [b"\x7fELF\xff", b"[" * 10_000, b'{"schema": "\x1b[31m"}\n', b"{}\n", b""])
def test_a_hostile_file_gets_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad").write_bytes(content)
    done = CliRunner().invoke(app, ["devices", "import", str(tmp_path / "bad"), "--name", "board"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.strip().isprintable()
