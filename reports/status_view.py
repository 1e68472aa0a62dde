"""Where a run stands, in the terminal: once, or redrawn until it has ended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kneepoint.reports.run_status import RunStatus, WorkerFacts, status_of
from kneepoint.reports.status_facts import FidelityFacts
from kneepoint.reports.terminal import duration
from kneepoint.reports.wording import counted, joined, number, printable

_MOST_ROWS = 32
"""Of a table; what does not fit is summed up in one more."""
_MOST_CHARACTERS = 300
"""Of a reason."""


def status_views(facts: RunStatus) -> list[Table | Text | str]:
    """The facts as tables and lines, in the order to print them in; the last line is what to do next.

    Names and reasons are plain text: neither markup nor terminal escapes in them take effect.
    """
    headline = Text(printable(f"{facts.task}: {_headline(facts)}"), style="bold")
    views: list[Table | Text | str] = [headline, _summary(facts)]
    if facts.failures:
        views += ["", _failure_table(facts)]
    if facts.workers:
        views += ["", _worker_table(facts.workers)]
    views += ["", *map(printable, facts.notes)] if facts.notes else []
    return [*views, "", printable(facts.next_step)]


def watch_status(directory: str | os.PathLike[str], seconds: float, console: Console | None = None) -> None:
    """Draw where a run stands until it ended, or Ctrl-C. Where there is no terminal, every picture stays.

    Args:
        directory: The run directory.
        seconds: Between two pictures.
        console: Where to draw; standard output by default.

    Raises:
        RunError: If it is no run directory, or its trial log is malformed.
    """
    console = console if console is not None else Console()
    with suppress(KeyboardInterrupt):
        if not console.is_terminal:
            for picture in _pictures(directory, seconds):
                console.print(picture)
            return
        with Live(console=console, auto_refresh=False) as live:
            for picture in _pictures(directory, seconds):
                live.update(picture, refresh=True)


def _pictures(directory: str | os.PathLike[str], seconds: float) -> Iterator[Group]:
    while True:
        facts = status_of(directory)
        views = status_views(facts)
        if facts.state == "running":
            views[-1] = "Ctrl-C ends watching; the run goes on"
        parts: list[RenderableType] = [Text(one) if isinstance(one, str) else one for one in views]
        yield Group(*parts)
        if not facts.goes_on:
            return
        time.sleep(seconds)


# --- the run -------------------------------------------------------------------------------------------------------


def _summary(facts: RunStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    for what, text in _summary_rows(facts):
        table.add_row(Text(what, style="dim"), Text(printable(text)))
    return table


def _headline(facts: RunStatus) -> str:
    heard = "" if facts.written is None else duration(facts.looked - facts.written)
    return {
        "running": "going on",
        "ended": "ended",
        "failed": f"failed ({_short(facts.reason or 'it is not known why')})",
        "interrupted": "interrupted",
        "killed": f"killed (last heard of {heard} ago, and nobody is at work on it)",
        "silent": f"not heard of for {heard}: killed, or busy with one long step",
        "stopped": "nobody is at work on it",
    }[facts.state]


def _summary_rows(facts: RunStatus) -> Iterable[tuple[str, str]]:
    if facts.driver is not None:
        yield "driver", _driver(facts, **facts.driver)
    if facts.stage and facts.state != "ended":
        yield "stage", _stage(facts)
    yield "trials", _trials(facts)
    if facts.trials_a_minute.all is not None:
        yield "pace", _pace(facts)
    if facts.front_size is not None or facts.best:
        yield "front", _front(facts)
    if facts.best:
        yield "best", ", ".join(f"{name} {number(value)}" for name, value in facts.best.items())
    if facts.trials:
        yield "time", _time(facts)


def _driver(facts: RunStatus, host: str, pid: int, started: float) -> str:
    until = facts.looked if facts.goes_on or facts.written is None else facts.written
    return f"process {pid} on {host}, {'for' if facts.goes_on else 'worked'} {duration(until - started)}"


def _stage(facts: RunStatus) -> str:
    done = "" if facts.done is None else f" {facts.done}" + ("" if facts.total is None else f"/{facts.total}")
    left = "" if facts.seconds_left is None else f", {duration(facts.seconds_left)} left"
    return f"{facts.stage}{done}{left}"


def _trials(facts: RunStatus) -> str:
    if not facts.trials:
        return "none yet"
    failed = sum(one.failed for one in facts.trials.values())
    counts = joined([f"{one.trials} {name}" for name, one in facts.trials.items()])
    return f"{sum(one.trials for one in facts.trials.values())}: {counts}" + (f"; {failed} failed" if failed else "")


def _pace(facts: RunStatus) -> str:
    pace = facts.trials_a_minute
    recent = "" if pace.last_10_minutes is None else f", {number(pace.last_10_minutes)} in the last 10 minutes"
    return f"{number(pace.all or 0.0)} trials a minute over all{recent}"


def _front(facts: RunStatus) -> str:
    size = [] if facts.front_size is None else [counted(facts.front_size, "candidate")]
    return ", ".join(size + ([] if facts.hypervolume is None else [f"hypervolume {number(facts.hypervolume)}"]))


def _time(facts: RunStatus) -> str:
    """Where the seconds of all workers went."""
    spent = joined([f"{name} {duration(one.seconds)}{_part(one, facts)}" for name, one in facts.trials.items()])
    share = facts.share_measuring
    return spent + ("" if share is None else f"; since their driver began, workers measured {share:.0%} of the time")


def _part(one: FidelityFacts, facts: RunStatus) -> str:
    whole = sum(other.seconds for other in facts.trials.values())
    return f" ({one.seconds / whole:.0%})" if len(facts.trials) > 1 and whole > 0 else ""


# --- its failures and workers --------------------------------------------------------------------------------------


def _failure_table(facts: RunStatus) -> Table:
    table = _table("failed", "why", "such as")
    table.columns[0].justify = "right"
    shown, rest = facts.failures[:_MOST_ROWS], facts.failures[_MOST_ROWS:]
    for one in shown:
        table.add_row(str(one.count), _text(_short(one.reason)), _text(one.example))
    if rest:
        table.add_row(str(sum(one.count for one in rest)), counted(len(rest), "more reason"), "")
    return table


def _worker_table(workers: Sequence[WorkerFacts]) -> Table:
    """A row a worker, and one for all that do not fit, or are gone while others are not."""
    table = _table("worker", "node", "does", "trial", "for", "done", "trials", "busy")
    for column in table.columns[4:]:
        column.justify = "right"
    there = sum(one.done is not None or one.state != "gone" for one in workers)  # the first ones
    shown = workers[: min(there or len(workers), _MOST_ROWS)]
    for one in shown:
        table.add_row(*map(_text, _worker_row(one)))
    if rest := workers[len(shown) :]:
        trials, seconds = sum(one.trials for one in rest), sum(one.busy_seconds for one in rest)
        what = f"{len(rest)} {'more' if len(shown) == _MOST_ROWS else 'earlier'}"
        table.add_row(what, "", "", "", "", "", str(trials), duration(seconds))
    return table


def _worker_row(one: WorkerFacts) -> Iterable[str]:
    does = "in the driver" if one.state == "driver" else one.state
    lasted = "" if one.seconds is None else duration(one.seconds)
    done = "" if one.done is None else str(one.done)
    return one.name, one.node, does, one.trial or "", lasted, done, str(one.trials), duration(one.busy_seconds)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(text: str) -> Text:
    return Text(printable(text))


def _short(text: str) -> str:
    """A reason in one line, cut where it is very long."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 1]}…"
