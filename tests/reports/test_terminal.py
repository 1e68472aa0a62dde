import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kneepoint.reports import LiveDisplay, RunView, front_table
from kneepoint.reports.terminal import duration
from kneepoint.tasks.errors import RunError

WriteRun = Callable[..., Path]


def rendered(view: RunView, device: str | None = None, width: int = 160, terminal: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=terminal, color_system="standard" if terminal else None).print(
        front_table(view, device)
    )
    return out.getvalue()


def rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_front_stands_beside_the_baselines(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    text = rendered(view)
    for member in view.members():
        (row,) = rows(text, member.id[:8])
        assert "recovered" in row
    (row,) = rows(text, "uniform 8-bit  ")
    assert re.search(r"teacher +8\.0 +100% +0\.\d{4} ±0\.\d{4} ", row)
    assert rows(text, "random (best of 8)")
    assert "half-width student 8-bit  0.66 (+23.1%)" in text
    assert "all baselines             0.6912 (+17.5%)" in text


def test_the_knee_is_marked_and_highlighted(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    assert view.knee is not None
    text = rendered(view)
    assert rows(text, f"{view.knee.id[:8]} ★")
    assert text.count("★") == 2  # and what it means
    assert f"\x1b[1;33m{view.knee.id[:8]} ★" in rendered(view, terminal=True)


def test_infeasible_baselines_are_marked(run_directory: Path) -> None:
    text = rendered(RunView.read(run_directory))
    assert rows(text, "uniform 2-bit ✗")
    assert not rows(text, "uniform 8-bit ✗")
    assert "✗ breaks a constraint" in text


def test_sizes_have_no_error(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    row = rows(rendered(view), view.members()[0].id[:8])[0]
    assert row.count("±") == 3


def test_the_front_of_one_device_shows_its_objectives_alone(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    text = rendered(view, "x86-server")
    assert "@x86-server" in text
    assert "raspberry" not in text
    assert not rows(text, view.members()[-1].id[:8])
    with pytest.raises(RunError, match="Known: raspberry-pi-4b, x86-server"):
        rendered(view, "pixel-6")


@pytest.mark.parametrize("width", [100, 160])
def test_a_member_takes_one_line_from_100_columns_on(run_directory: Path, width: int) -> None:
    view = RunView.read(run_directory)
    text = rendered(view, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    first, second = (text.index(member.id[:8]) for member in view.members()[:2])
    assert text[first:second].count("\n") == 1


def test_numbers_are_whole_at_80_columns(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    text = rendered(view, width=80)
    assert "…" not in text
    assert f"{view.members()[0].scores['accuracy'].value:.4f}" in text


def test_names_are_neither_markup_nor_escapes(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        content["task"] = "[red]task[/red]\x1b[2J"
        content["baselines"]["[link=http://x]evil[/nonsense]"] = content["baselines"].pop("random")

    text = rendered(RunView.read(make_run(front=front)))
    assert "[red]task[/red]\\x1b[2J" in text
    assert "[link=http://x]evil[/nonsense]" in text
    assert "\x1b" not in text


def test_an_empty_front_without_baselines(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        content.update(fronts={"all": []}, knee=None, candidates=[], baselines={}, hypervolume=0.0)

    text = rendered(RunView.read(make_run(front=front)))
    assert re.search(r"\n  the front +0 *\n", text)
    assert "★" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3599.9, "1 h 00 min"), (3725, "1 h 02 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain_display(clock: Clock) -> tuple[LiveDisplay, io.StringIO]:
    out = io.StringIO()
    return LiveDisplay(Console(file=out, width=60), every=10, clock=clock), out


def show(display: LiveDisplay, done: int, stage: str = "measuring", failed: int = 0) -> None:
    display.update(done, 200, 90.0, {"accuracy": 0.97}, 0.8123, stage=stage, failed=failed)


def test_without_a_terminal_a_line_when_the_stage_changes_or_time_has_passed() -> None:
    clock = Clock()
    display, out = plain_display(clock)
    with display:
        for second in range(25):
            clock.now = float(second)
            show(display, second)
        show(display, 25, stage="recovering", failed=1)
    assert out.getvalue().splitlines() == [
        "measuring 0/200, 1 min 30 s left, hypervolume 0.8123, best accuracy 0.97",
        "measuring 10/200, 1 min 30 s left, hypervolume 0.8123, best accuracy 0.97",
        "measuring 20/200, 1 min 30 s left, hypervolume 0.8123, best accuracy 0.97",
        "recovering 25/200, 1 failed, 1 min 30 s left, hypervolume 0.8123, best accuracy 0.97",
    ]


def test_the_last_state_is_always_said() -> None:
    display, out = plain_display(Clock())
    with display:
        show(display, 1)
        show(display, 2)
    assert [line.split(",")[0].split()[-1] for line in out.getvalue().splitlines()] == ["1/200", "2/200"]


def test_what_is_unknown_is_left_out() -> None:
    display, out = plain_display(Clock())
    with display:
        display.update(3, None, None, {}, None, stage="sensitivity\x1b[2J", failed=0)
    assert out.getvalue() == "sensitivity\\x1b[2J 3\n"


def test_nothing_to_say() -> None:
    display, out = plain_display(Clock())
    with display:
        pass
    assert out.getvalue() == ""


def test_standard_output_is_left_to_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveDisplay() as display:
        show(display, 1)
        print("{}")
    captured = capsys.readouterr()
    assert captured.out == "{}\n"
    assert captured.err.startswith("measuring 1/200")


def test_on_a_terminal_standard_output_is_not_redirected(capsys: pytest.CaptureFixture[str]) -> None:
    stdout = sys.stdout
    with LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=100)) as display:
        show(display, 1)
        assert sys.stdout is stdout
        print("{}")
    assert capsys.readouterr().out == "{}\n"


def stop_with(error: BaseException, display: LiveDisplay) -> None:
    with display:
        show(display, 7, stage="[bold]measuring", failed=2)
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("boom")])
def test_a_terminal_is_clean_after_whatever_ends_the_search(error: BaseException) -> None:
    out = io.StringIO()
    stderr = sys.stderr
    with pytest.raises(type(error)):
        stop_with(error, LiveDisplay(Console(file=out, force_terminal=True, width=100)))
    text = out.getvalue()
    assert "[bold]measuring" in text  # a name is not markup
    assert "2 failed" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is back
    assert text.rindex("\x1b[2K") < text.rindex("7/200")  # the display is wiped, and one line remains
    assert text.endswith("\n")
    assert sys.stderr is stderr
