"""Rank correlation between the fidelities of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kneepoint.reports import RunView, summary_lines
from kneepoint.reports.rungs import rungs

WriteRun = Callable[..., Path]


def run_with(path: Path, qualities: list[tuple[float, float]]) -> RunView:
    """A run of which these trials alone are left, each measured at both fidelities."""
    file = path / "trials.jsonl"
    example: dict[str, Any] = next(
        entry for entry in map(json.loads, file.read_text().splitlines()) if entry["scores"] and not entry["baseline"]
    )
    lines = []
    for number, pair in enumerate(qualities):
        for fidelity, accuracy in zip(("ptq", "recovered"), pair, strict=True):
            scores = {**example["scores"], "accuracy": {"value": accuracy, "error": 0.01}}
            change = {"id": f"{number}-{fidelity}", "policy_id": f"{number}", "fidelity": fidelity, "scores": scores}
            lines.append(json.dumps({**example, **change}))
    file.write_text("\n".join(lines) + "\n")
    return RunView.read(path)


@pytest.mark.parametrize(
    ("pairs", "tau"),
    [
        ([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)], 1.0),
        ([(0.1, 0.7), (0.2, 0.6), (0.3, 0.5)], -1.0),
        ([(0.1, 0.5), (0.2, 0.7), (0.3, 0.6)], 1 / 3),
    ],
)
def test_the_order_before_and_after(make_run: WriteRun, pairs: list[tuple[float, float]], tau: float) -> None:
    view = run_with(make_run(), pairs)
    (found,) = rungs(view)
    assert (found.lower, found.upper, found.candidates) == ("ptq", "recovered", 3)
    assert found.tau == pytest.approx(tau)
    assert found.gain == pytest.approx(0.4)


def test_what_tells_nothing_apart_has_no_order(make_run: WriteRun) -> None:
    view = run_with(make_run(), [(0.5, 0.5), (0.5, 0.6), (0.5, 0.7)])
    assert math.isnan(rungs(view)[0].tau)
    assert "says nothing about" in summary_lines(view)[-1]


def test_two_candidates_are_too_few_for_an_order(make_run: WriteRun) -> None:
    view = run_with(make_run(), [(0.1, 0.5), (0.2, 0.6)])
    assert rungs(view) == []
    assert len(summary_lines(view)) == 3


def test_the_summary_says_it(make_run: WriteRun) -> None:
    line = summary_lines(run_with(make_run(), [(0.1, 0.5), (0.2, 0.7), (0.3, 0.6)]))[-1]
    assert line == (
        "3 candidates were measured as ptq and as recovered: the ranks of their accuracy correlate by 0.33 "
        "(Kendall's tau), and it changed by +0.4000 in the median."
    )


def test_the_sum_of_sensitivities_is_the_proxy(make_run: WriteRun) -> None:
    path = make_run()
    run_with(path, [(0.9, 0.9), (0.8, 0.9), (0.5, 0.9), (0.6, 0.9)])
    file = path / "trials.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    for entry, (bits, keep) in zip(entries[::2], [(2, 2), (1, 2), (0, 1), (0, 0)], strict=True):
        entry["policy"]["student"] = "teacher"
        entry["parameters"] = {"student": "teacher", "bits/stem": bits, "keep/stem": keep}
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    values = {"bits/stem": [0.5, 0.1, 0.0], "keep/stem": [0.4, 0.2, 0.0]}
    (path / "sensitivities.json").write_text(json.dumps({"schema": "kneepoint.sensitivities/1", "values": values}))
    proxy, trained = rungs(RunView.read(path))
    assert (proxy.lower, proxy.upper, proxy.candidates) == ("proxy", "ptq", 4)
    assert proxy.tau == pytest.approx(2 / 3)
    assert proxy.to_json()["gain"] is None
    assert trained.lower == "ptq"
    assert "sums of their layers' sensitivities" in "\n".join(summary_lines(RunView.read(path)))


@pytest.mark.parametrize("text", ["", "{", '{"values": {"bits/stem": ["x"]}}', '{"values": {"bits/stem": []}}'])
def test_sensitivities_that_say_nothing_make_no_proxy(make_run: WriteRun, text: str) -> None:
    path = make_run()
    run_with(path, [(0.9, 0.9), (0.8, 0.9), (0.5, 0.9)])
    (path / "sensitivities.json").write_text(text)
    assert [one.lower for one in rungs(RunView.read(path))] == ["ptq"]
