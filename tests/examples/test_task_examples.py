"""The examples of the kinds of tasks, each run small: a search from the task to artifacts that were checked."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
METRICS = {
    "text_classification": ["accuracy"],
    "token_classification": ["entity_f1", "token_accuracy"],
    "language_model": ["perplexity"],
    "regression": ["mean_absolute_error", "r2"],
    "segmentation": ["mean_iou"],
    "several_outputs": ["digit_accuracy", "box_iou"],
}
TOLERANCE = 0.005


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_example_of_a_task_is_forgotten() -> None:
    tested_elsewhere = {"own_network", "decoder_weight_only"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*tested_elsewhere, *METRICS}


@pytest.mark.parametrize("name", METRICS)
def test_a_small_search_ends_in_checked_artifacts(name: str, tmp_path: Path) -> None:
    result = load(name).main(["--small", "--trials", "2", "--out", str(tmp_path)])
    assert len(result.front) >= 1
    front = json.loads((tmp_path / "front.json").read_text())
    members = [entry for entry in front["candidates"] if entry["id"] in front["fronts"]["all"]]
    assert members
    for entry in members:
        assert (tmp_path / entry["artifact"]).exists()
        assert has_errors(entry["scores"], METRICS[name])
        assert reaches_its_score(entry, METRICS[name][0])
        assert entry["test"][METRICS[name][0]]["error"] is not None


def has_errors(scores: dict[str, Any], metrics: list[str]) -> bool:
    """Whether every metric is among the scores, with one standard error."""
    return all(scores[metric]["error"] >= 0 for metric in metrics)


def reaches_its_score(entry: dict[str, Any], metric: str) -> bool:
    """Whether ONNX Runtime's score is the simulator's, but for rounding."""
    simulated, executed = entry["scores"][metric]["value"], entry["executed"][metric]["value"]
    return bool(abs(executed - simulated) <= TOLERANCE * max(1.0, abs(simulated)))
