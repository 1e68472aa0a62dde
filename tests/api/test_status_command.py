"""``kneepoint status``, on a real run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_finished_run(command: Command, finished: Path) -> None:
    before = files(finished)
    done = command("status", finished)
    assert (done.code, done.err) == (0, "")
    assert "tiny: ended" in done.out
    assert "hypervolume" in done.out
    assert done.out.splitlines()[-1] == f"'kneepoint front {finished}' shows what it found"
    assert files(finished) == before


def test_json_is_all_there_is(command: Command, finished: Path) -> None:
    done = command("status", finished, "--json")
    facts, front = json.loads(done.out), json.loads((finished / "front.json").read_text())
    assert (done.code, done.err) == (0, "")
    assert (facts["schema"], facts["state"], facts["task"]) == ("kneepoint.status_view/1", "ended", "tiny")
    assert facts["hypervolume"] == front["hypervolume"]
    assert facts["front_size"] == len(front["fronts"]["all"])
    lines = (finished / "trials.jsonl").read_text().splitlines()
    assert sum(one["trials"] for one in facts["trials"].values()) == len(lines)
    assert sum(one["trials"] for one in facts["workers"]) == len(lines)
    assert facts["trials_a_minute"]["all"] > 0
    assert 0 <= facts["share_measuring"] <= 1  # since the last driver began: another test may have resumed the run


def test_a_killed_run(command: Command, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    shutil.copytree(finished, run)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "ended": None, "stage": "searching", "done": 3}))
    for arguments in ((), ("--watch", "5")):  # nothing to wait for
        done = command("status", run, *arguments)
        assert done.code == 0
        assert "tiny: killed" in done.out
        assert "searching 3/" in done.out
        assert "".join(done.out.split()).endswith("".join(f"'kneepoint resume {run}' goes on".split()))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nowhere",), "there is none in nowhere"),
        (("nowhere", "--json", "--watch", "1"), "leave one of them out"),
        (("nowhere", "--watch", "0"), "--watch"),
    ],
)
def test_bad_input_is_one_line(command: Command, arguments: tuple[str, ...], text: str) -> None:
    done = command("status", *arguments)
    assert (done.code, done.out) == (2, "")
    assert text in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error:")]) == 1
