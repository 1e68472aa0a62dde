"""``status.json`` is whole at any moment."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kneepoint.search.progress import Status
from kneepoint.search.status_file import StatusFile, read_status
from kneepoint.search.workers.worker_state import WorkerState

STATUS = Status("searching", 3, 8, 12.0, {"accuracy": 0.9}, 0.3, 1)


def test_it_says_where_the_run_stands_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    file = StatusFile(path, lambda: [WorkerState("w", "node", "measuring", "abc-ptq", 1.0, 2)])
    file.update(STATUS)
    content = read_status(path)
    assert content is not None
    assert (content["stage"], content["done"], content["ended"]) == ("searching", 3, None)
    assert content["driver"]["pid"] == os.getpid()
    assert content["workers"][0]["trial"] == "abc-ptq"
    file.update(replace(STATUS, done=4))  # within a second
    assert (read_status(path) or {})["done"] == 3
    file.update(replace(STATUS, stage="recovering finalists"))
    assert (read_status(path) or {})["stage"] == "recovering finalists"
    file.end("interrupted")
    assert (read_status(path) or {})["ended"] == "interrupted"


def test_a_disk_without_room_does_not_end_the_run(tmp_path: Path) -> None:
    StatusFile(tmp_path / "nowhere" / "status.json", list).update(STATUS)
    assert read_status(tmp_path / "nowhere" / "status.json") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "another/1"}', "\xff"])
def test_what_is_no_status_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    assert read_status(tmp_path / "status.json") is None
