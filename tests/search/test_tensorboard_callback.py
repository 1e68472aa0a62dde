"""Searches in TensorBoard, whose own reader looks into the files."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # has no types
    EventAccumulator,
)

from kneepoint.search.front_file import read_front
from kneepoint.search.progress import Status
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.tensorboard_callback import TensorBoardCallback
from kneepoint.tasks.errors import JobError


@pytest.fixture
def records(finished: Path) -> list[Record]:
    return RunDirectory(finished).log().records[:4]


def status(trial: int, failed: int = 0) -> Status:
    return Status("measuring", trial, 8, None, {}, trial / 10, failed)


def tell(callback: TensorBoardCallback, records: list[Record]) -> None:
    for trial, record in enumerate(records, 1):
        callback.trial_ended(record, status(trial))


def read(folder: Path) -> Any:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def steps(folder: Path, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in read(folder).Scalars(tag)}


def texts(folder: Path, tag: str) -> dict[int, str]:
    events = read(folder).Tensors(f"{tag}/text_summary")
    return {event.step: event.tensor_proto.string_val[0].decode() for event in events}


def test_a_trial_is_a_step(finished: Path, tmp_path: Path, records: list[Record]) -> None:
    callback = TensorBoardCallback()
    callback.started({}, tmp_path)
    tell(callback, records)
    folder = tmp_path / "tensorboard"
    values = {step: pytest.approx(record.values["accuracy"]) for step, record in enumerate(records, 1)}
    assert steps(folder, "trials/accuracy") == values  # on disk before the end
    assert list(steps(folder, "trials/latency_ms@raspberry-pi-4b")) == [1, 2, 3, 4]
    assert steps(folder, "hypervolume") == {step: pytest.approx(step / 10) for step in (1, 2, 3, 4)}
    assert list(steps(folder, "failures").values()) == [0, 0, 0, 0]
    front = read_front(RunDirectory(finished).read_front())
    callback.ended(front, tmp_path)
    shown = texts(folder, "front")[4].splitlines()
    assert shown[0] == f"hypervolume {front.hypervolume:.6g}"
    assert shown[2] == "| id | fidelity | accuracy | latency_ms@raspberry-pi-4b | size_mb |"
    assert shown[4].startswith(f"| {front[0].id} | {front[0].fidelity} | {front[0].values['accuracy']:.6g} |")
    assert len(shown) == 4 + len(front)


def test_a_failed_trial_says_why(tmp_path: Path, records: list[Record]) -> None:
    callback = TensorBoardCallback()
    callback.started({}, tmp_path)
    bad = replace(records[1], scores=None, error="ran out of memory")
    callback.trial_ended(records[0], status(1))
    callback.trial_ended(bad, status(2, failed=1))
    callback.ended(None, tmp_path)
    folder = tmp_path / "tensorboard"
    assert list(steps(folder, "trials/accuracy")) == [1]
    assert steps(folder, "failures") == {1: 0, 2: 1}
    (shown,) = texts(folder, "failure").values()
    assert shown.startswith(f"{bad.id}: ran out of memory\n\n    {{\n")
    assert '     "layers": {' in shown
    assert "front/text_summary" not in read(folder).Tags()["tensors"]


def test_a_resumed_search_goes_on_after_the_last_step(tmp_path: Path, records: list[Record]) -> None:
    folder = tmp_path / "events"
    for part in (records[:1], records[1:3], [], records[3:]):
        callback = TensorBoardCallback(folder)
        callback.started({}, tmp_path)
        tell(callback, part)
        callback.ended(None, tmp_path)
    assert [event.step for event in read(folder).Scalars("hypervolume")] == [1, 2, 3, 4]
    assert not (tmp_path / "tensorboard").exists()


def test_a_search_that_was_killed_goes_on(tmp_path: Path, records: list[Record]) -> None:
    killed = TensorBoardCallback()
    killed.started({}, tmp_path)
    tell(killed, records[:2])
    folder = tmp_path / "tensorboard"
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-3])  # the last event is whatever was written last
    callback = TensorBoardCallback()
    callback.started({}, tmp_path)
    tell(callback, records[2:])
    killed.ended(None, tmp_path)
    callback.ended(None, tmp_path)
    assert list(steps(folder, "hypervolume")) == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_files_that_cannot_be_written_are_warned_of_once(tmp_path: Path, records: list[Record]) -> None:
    callback = TensorBoardCallback()
    callback.started({}, tmp_path)
    tell(callback, records[:1])
    shutil.rmtree(tmp_path / "tensorboard")
    with pytest.warns(UserWarning, match=r"the search goes on without them: .*No such file"):
        callback.trial_ended(records[1], status(2))
    tell(callback, records[2:])  # a second warning would be an error
    callback.ended(None, tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    callback = TensorBoardCallback(tmp_path / "file" / "below")
    with pytest.raises(JobError, match=r"writes to .*below, which fails: Not a directory; give it another directory"):
        callback.started({}, tmp_path)
    callback.ended(None, tmp_path)  # as the driver does, whatever failed


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(
        JobError, match=r"TensorBoardCallback needs TensorBoard .*pip install 'kneepoint\[tensorboard\]'"
    ):
        TensorBoardCallback()
