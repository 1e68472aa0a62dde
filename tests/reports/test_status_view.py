"""The pictures of where a run stands."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kneepoint.reports.run_status import status_of
from kneepoint.reports.status_view import status_views, watch_status
from tests.reports.conftest import WriteRun
from tests.reports.small_run import JOB, NOW, record, small_run, status, worker

FAR = {"host": "far-away", "pid": 7, "started": NOW - 600}
RECORDS = [
    record("a", ended=NOW - 400, worker="n:0", seconds=30.0),
    record("b", ended=NOW - 350, worker="n:1", seconds=60.0, error="MemoryError: 3 GB"),
    record("b", "recovered", ended=NOW - 300, worker="n:1", seconds=90.0),
]


def shown(path: Path, now: float = NOW, width: int = 200) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for view in status_views(status_of(path, now)):
        console.print(view, markup=False, highlight=False, soft_wrap=isinstance(view, str))
    return out.getvalue()


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    workers = [worker("n:0", "measuring", "c-ptq", NOW - 40), worker("n:1")]
    lines = shown(small_run(tmp_path, RECORDS, status(driver=FAR, workers=workers))).splitlines()
    cells = [" ".join(line.split()) for line in lines]
    assert cells[0] == "tiny: going on"
    assert "driver process 7 on far-away, for 10 min 00 s" in cells
    assert "stage searching 4/10, 1 min 30 s left" in cells
    assert "trials 3: 2 ptq and 1 recovered; 1 failed" in cells
    assert "pace 1.385 trials a minute over all, 0.4186 in the last 10 minutes" in cells
    assert "front hypervolume 0.25" in cells
    assert "best accuracy 0.9" in cells
    spent = "time ptq 1 min 30 s (50%) and recovered 1 min 30 s (50%)"
    assert f"{spent}; since their driver began, workers measured 18% of the time" in cells
    assert f"1 MemoryError: 3 GB {RECORDS[1].id}" in cells
    assert "n:0 n measuring c-ptq 40 s 3 1 30 s" in cells
    assert "n:1 n idle 30 s 3 2 2 min 30 s" in cells
    assert lines[-1] == f"'kneepoint status {tmp_path} --watch 2' follows it"


@pytest.mark.parametrize(
    ("changes", "headline", "last"),
    [
        ({"ended": "done"}, "tiny: ended", "'kneepoint front DIR' shows what it found"),
        ({"ended": "interrupted"}, "tiny: interrupted", "'kneepoint resume DIR' goes on"),
        ({"ended": "failed: no\n room"}, "failed (no room)", "'kneepoint resume DIR' goes on, once that is mended"),
        ({}, "killed (last heard of 1 min 40 s ago", "'kneepoint resume DIR' goes on"),
        ({"driver": FAR}, "not heard of for 1 min 40 s", "if process 7 is gone from far-away, 'kneepoint resume DIR'"),
    ],
)
def test_the_headline_and_the_next_step(tmp_path: Path, changes: dict[str, Any], headline: str, last: str) -> None:
    text = shown(small_run(tmp_path, status=status(written=NOW - 100, **changes)))
    assert headline in text.splitlines()[0]
    assert last.replace("DIR", str(tmp_path)) in text.splitlines()[-1]


def test_a_run_of_which_nothing_is_known(tmp_path: Path) -> None:
    cells = [" ".join(line.split()) for line in shown(small_run(tmp_path, status="{")).splitlines()]
    assert cells[:2] == ["tiny: nobody is at work on it", "trials none yet"]
    assert "status.json is malformed, and left aside" in cells[3]
    assert cells[-1] == f"'kneepoint resume {tmp_path}' goes on"


def test_a_run_with_a_front(make_run: WriteRun) -> None:
    text = shown(make_run(job=JOB))
    assert "10 candidates, hypervolume 0.8123" in text
    assert "OutOfMemoryError: the recovery of block3.conv2 did not fit" in text
    assert "worker-1" in text


def test_names_are_neither_markup_nor_escapes(tmp_path: Path) -> None:
    evil = "[bold red]x[/bold red] [link=http://e.vil]y[/link] \x1b[2J [/nothing]"
    said = status(driver={**FAR, "host": evil}, stage=evil, best={evil: 1.0}, workers=[worker(evil, evil, evil)])
    records = [record("a", error=evil, worker=evil), record("b", worker="[dim]z")]
    run = small_run(tmp_path / "[bold]run", records, said, job=f"{JOB}\ntask_name: {json.dumps(evil)}\n")
    text = shown(run, width=400)
    assert text.count("[bold red]x[/bold red] [link=http://e.vil]y[/link] \\x1b[2J [/nothing]") >= 6
    assert "[dim]z" not in text  # it is one of the earlier ones
    assert "1 earlier" in text
    assert "\x1b" not in text
    assert "[bold]run' --watch" in text.replace("run --watch", "run' --watch")
    out = io.StringIO()
    watched = small_run(tmp_path / "[bold]watched", records, {**said, "ended": f"failed: {evil}"})
    watch_status(watched, 1.0, Console(file=out, force_terminal=True, color_system=None, width=400))
    assert "[bold red]x[/bold red]" in out.getvalue()
    assert "\x1b[2J " not in out.getvalue()


def test_long_lists_and_reasons_are_cut(tmp_path: Path) -> None:
    many = [record(f"w{at}", worker=f"n:{at:03}", error=f"kind {chr(97 + at % 40)}" * 99) for at in range(40)]
    text = shown(small_run(tmp_path, many, status(driver=FAR)))
    assert "n:031" in text
    assert "n:032" not in text
    assert "8 more" in text
    assert "8 more reasons" in text
    assert max(map(len, text.splitlines())) <= 200
    assert "…" in text


def test_a_narrow_terminal_shows_everything(tmp_path: Path) -> None:
    workers = [worker("n:0", "measuring", "0123456789abcdef-ptq", NOW - 40)]
    text = shown(small_run(tmp_path, RECORDS, status(driver=FAR, workers=workers)), width=50)
    assert max(map(len, text.splitlines()[:-1])) <= 50


def on_terminal(out: io.StringIO) -> Console:
    return Console(file=out, force_terminal=True, color_system=None, width=120, height=40)


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    small_run(tmp_path, status=status(driver=FAR, written=time.time()))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            (tmp_path / "status.json").write_text(json.dumps(status(ended="done")))

    monkeypatch.setattr(time, "sleep", sleep)
    out = io.StringIO()
    watch_status(tmp_path, 0.5, on_terminal(out) if terminal else Console(file=out, width=120))
    text = out.getvalue()
    assert slept == [0.5, 0.5]
    assert text.count("tiny: going on") == text.count("Ctrl-C ends watching") == 2
    assert text.rindex("tiny: ended") > text.rindex("tiny: going on")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == terminal  # the cursor is back
    assert text.removesuffix("\x1b[?25h").rstrip(" ").endswith("\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_ends_with_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    small_run(tmp_path, status=status(driver=FAR, written=time.time()))

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    out = io.StringIO()
    watch_status(tmp_path, 0.5, on_terminal(out) if terminal else Console(file=out, width=120))
    assert "tiny: going on" in out.getvalue()
    assert out.getvalue().count("\x1b[?25h") == terminal
