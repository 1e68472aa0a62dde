from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from kneepoint.deployment import TARGETS, export_network, kernel_counts
from kneepoint.deployment.exporting import check_target
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import InputError, ParityError


def test_a_folder_holds_the_model_and_what_it_is(bench: Any, tmp_path: Path) -> None:
    compressed, task = bench.compressed("twice", "mixed"), bench.task("twice")
    artifact = export_network(compressed, task, tmp_path / "new" / "folder", extra={"scores": {"size_mb": 1}})
    data = artifact.path.read_bytes()
    assert sorted(path.name for path in artifact.path.parent.iterdir()) == ["manifest.json", "model.onnx"]
    assert (artifact.bytes, artifact.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert artifact.kernels == kernel_counts(data)
    manifest = json.loads((artifact.path.parent / "manifest.json").read_text())
    assert manifest["schema"] == "kneepoint.artifact/1"
    assert (manifest["file"], manifest["bytes"], manifest["sha256"]) == ("model.onnx", len(data), artifact.sha256)
    assert Policy.from_json(manifest["policy"]) == compressed.policy
    assert manifest["policy_id"] == compressed.policy.id
    assert manifest["executed"] == artifact.parity.executed.to_json()
    assert manifest["agreement"] == artifact.parity.agreement == 1.0
    assert manifest["deviation"] == artifact.parity.deviation < 0.001
    assert manifest["scores"] == {"size_mb": 1}
    assert manifest["onnxruntime"] == onnxruntime.__version__


def test_extra_entries_do_not_replace_the_facts(bench: Any, tmp_path: Path) -> None:
    extra = {"sha256": "forged", "fidelity": "recovered"}
    artifact = export_network(bench.compressed("twice", "8"), bench.task("twice"), tmp_path, extra=extra)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["sha256"], manifest["fidelity"]) == (artifact.sha256, "recovered")


def test_an_export_replaces_an_earlier_one_whole(bench: Any, tmp_path: Path) -> None:
    task = bench.task("twice")
    (tmp_path / "model.onnx").write_bytes(b"old" * 100_000)
    (tmp_path / "notes.txt").write_text("mine")
    artifact = export_network(bench.compressed("twice", "8"), task, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == artifact.path.read_bytes()
    assert artifact.path.stat().st_size == artifact.bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "model.onnx", "notes.txt"]


def test_a_model_of_another_name_has_a_manifest_of_its_own(bench: Any, tmp_path: Path) -> None:
    export_network(bench.compressed("twice", "8"), bench.task("twice"), tmp_path, file_name="0ab1.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0ab1.json", "0ab1.onnx"]


def tampered(compressed: Any, layer: str) -> Any:
    """Exports with a wrong scale, and is simulated with the right one."""
    plan = compressed.plan
    scale = plan.weights[layer].scale
    wrong = replace(compressed, plan=plan.with_scales({layer: 0.3 * scale}, {}))
    wrong.__dict__["module"] = compressed.module
    return wrong


def test_an_artifact_that_does_not_reach_its_score_leaves_no_files(bench: Any, tmp_path: Path) -> None:
    wrong = tampered(bench.compressed("sound", "8"), "point")
    numbers = r"simulated 0\.\d{4}, ONNX Runtime 0\.\d{4}, outputs off by \d+\.\d\d%"
    with pytest.raises(ParityError, match=rf"^model.onnx: .*{numbers}; the artifact is not to be trusted$"):
        export_network(wrong, bench.task("sound"), tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_artifact_survives_a_failed_export(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"earlier")
    with pytest.raises(ParityError):
        export_network(tampered(bench.compressed("sound", "8"), "point"), bench.task("sound"), tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_an_unknown_target_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    for call in (check_target, lambda target: export_network(None, None, tmp_path, target)):  # type: ignore[arg-type]  # never looked at
        with pytest.raises(InputError, match=r"unknown target 'onnx-runtime'; did you mean 'onnxruntime'\? Known: "):
            call("onnx-runtime")
    for target in TARGETS:
        check_target(target)


def test_a_folder_that_is_a_file_is_refused(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"needs a folder that can be written; .*taken: .*; choose another"):
        export_network(bench.compressed("twice", "8"), bench.task("twice"), tmp_path / "taken")
