"""A run in the terminal: the front beside its baselines, and the live display of a running search."""

from __future__ import annotations

import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from kneepoint.reports.run_view import ALL_BASELINES, CandidateEntry, ObjectiveEntry, RunView
from kneepoint.reports.wording import (
    ID_LENGTH,
    column_decimals,
    gain_text,
    mean_bits,
    mean_kept,
    number,
    printable,
    score_text,
    short_id,
    trouble_text,
)

KNEE_MARK = "★"
INFEASIBLE_MARK = "✗"
_HEADER_WIDTH = 13
_NUMBER_WIDTH = 7


def front_table(view: RunView, device: str | None = None) -> Table:
    """The front beside the baselines: a row for each member, then a row for each baseline.

    A baseline of several candidates is shown by the one of best quality, a feasible one where there is any. Names of
    the run are plain text: neither markup nor terminal escapes in them take effect.

    Args:
        view: The run.
        device: The device whose front to show, with its objectives alone; None for the front over all objectives.

    Raises:
        RunError: If ``device`` has no front in this run.
    """
    members = view.members(device)
    objectives = [one for one in view.objectives if device is None or one.device in (None, device)]
    baselines = {name: _best(candidates) for name, candidates in view.baselines.items() if candidates}
    rows = _Rows(view, objectives, _places(objectives, [*members, *baselines.values()]))

    table = Table(
        title=_title(view, device),
        caption=_caption(view),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.title_justify = "left"
    _add_columns(table, objectives)
    for member in members:
        knee = member is view.knee
        table.add_row(*rows.front(member, knee), style="bold yellow" if knee else "")
    table.add_section()
    for name, candidate in baselines.items():
        table.add_row(*rows.baseline(name, candidate, len(view.baselines[name])), style="dim")
    return table


def _best(candidates: Sequence[CandidateEntry]) -> CandidateEntry:
    """The first feasible of candidates in order of quality, or the first of all."""
    return next((candidate for candidate in candidates if candidate.feasible), candidates[0])


def _places(objectives: Sequence[ObjectiveEntry], candidates: Sequence[CandidateEntry]) -> dict[str, int]:
    """Decimals by objective."""
    return {one.name: column_decimals([candidate.scores[one.name] for candidate in candidates]) for one in objectives}


def _title(view: RunView, device: str | None) -> Text:
    return Text(printable(f"{view.front.task}: the front{f' of {device}' if device else ''}"), style="bold")


def _add_columns(table: Table, objectives: Sequence[ObjectiveEntry]) -> None:
    table.add_column("candidate", overflow="fold", min_width=ID_LENGTH + 2)
    table.add_column("student", overflow="fold", min_width=7)
    table.add_column("bits", justify="right", no_wrap=True)
    table.add_column("kept", justify="right", no_wrap=True)
    for objective in objectives:
        table.add_column(Text(_header(objective.name)), justify="right", overflow="fold", min_width=_NUMBER_WIDTH)
    table.add_column("fidelity", no_wrap=True)


def _header(name: str) -> str:
    """The objective's name in lines that are no wider than its numbers, so that the table fits 100 columns."""
    measure, at, device = printable(name).partition("@")
    return "\n".join([measure, *textwrap.wrap(f"{at}{device}", _HEADER_WIDTH)])


@dataclass(frozen=True)
class _Rows:
    """Turns candidates into the cells of the table's rows."""

    view: RunView
    objectives: Sequence[ObjectiveEntry]
    places: Mapping[str, int]

    def front(self, candidate: CandidateEntry, knee: bool) -> list[Text]:
        return self._cells(short_id(candidate.id) + (f" {KNEE_MARK}" if knee else ""), candidate)

    def baseline(self, name: str, candidate: CandidateEntry, count: int) -> list[Text]:
        label = printable(name) + (f" (best of {count})" if count > 1 else "")
        return self._cells(label + ("" if candidate.feasible else f" {INFEASIBLE_MARK}"), candidate)

    def _cells(self, label: str, candidate: CandidateEntry) -> list[Text]:
        policy = candidate.policy
        scores = [score_text(candidate.scores[one.name], self.places[one.name]) for one in self.objectives]
        summary = (printable(policy.architecture), mean_bits(self.view, policy), mean_kept(self.view, policy))
        return [Text(cell) for cell in (label, *summary, *scores, printable(candidate.fidelity))]


def _caption(view: RunView) -> Text:
    """What the marks mean, and the hypervolume of the front against each baseline."""
    front = view.front
    marks = [f"{KNEE_MARK} the knee"] if view.knee else []
    troubles = dict.fromkeys(trouble_text(one) for one in front.candidates if not one.feasible)
    marks += [f"{INFEASIBLE_MARK} {' or '.join(map(printable, troubles))}"] if troubles else []
    marks += ["± one standard error", "bits and kept: means over what the run varied"]
    names = sorted(front.baselines, key=lambda name: (name == ALL_BASELINES, -front.baselines[name].hypervolume))
    heading = "hypervolume, over all objectives" + (" (the front's gain over each baseline)" if names else "")
    width = max(len(printable(name)) for name in ("the front", *names))
    volumes = [f"  {'the front':{width}}  {number(front.hypervolume)}", *(_volume(view, name, width) for name in names)]
    return Text("\n".join(["", "; ".join(marks), heading, *volumes]), style="dim", justify="left")


def _volume(view: RunView, name: str, width: int) -> str:
    volume = view.front.baselines[name].hypervolume
    gain = gain_text(view.front.hypervolume, volume)
    return f"  {printable(name):{width}}  {number(volume)}{f' ({gain})' if gain else ''}"


@dataclass(frozen=True)
class _State:
    """What a running search last said of itself."""

    done: int = 0
    total: int | None = None
    seconds_left: float | None = None
    best: Mapping[str, float] = field(default_factory=dict)
    hypervolume: float | None = None
    stage: str = "starting"
    failed: int = 0

    def line(self) -> str:
        """The state in one line of plain text."""
        done = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        parts = [f"{printable(self.stage)} {done}"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{duration(self.seconds_left)} left"] if self.seconds_left is not None else []
        parts += [f"hypervolume {number(self.hypervolume)}"] if self.hypervolume is not None else []
        parts += [f"best {printable(name)} {number(value)}" for name, value in self.best.items()]
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """A duration in its two largest units.

    >>> duration(3725)
    '1 h 02 min'
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class LiveDisplay:
    """How far a running search is, kept up to date on standard error; standard output is never touched.

    On a terminal it redraws itself in place, and is gone when the block ends, whatever ends it: one plain line of where
    the search stands is what remains. Elsewhere it writes such a line when the stage changes, and otherwise at most one
    every ``every`` seconds. ``update`` may be called from several threads.

    Example::

        with LiveDisplay() as display:
            display.update(3, 200, 540.0, {"accuracy": 0.97}, 0.81, stage="measuring", failed=0)

    Args:
        console: Where to draw; standard error by default.
        every: Seconds between two plain lines of one stage.
        clock: Seconds from any start, never falling.
    """

    def __init__(
        self, console: Console | None = None, every: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._every = every
        self._clock = clock
        self._state = _State()
        self._lock = threading.Lock()
        self._printed: _State | None = None
        self._printed_at = float("-inf")
        self._progress, self._task = _progress_bar(self._console)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._picture,
                console=self._console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,  # what the program prints there is its result, and belongs to its reader
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        with self._lock:
            if self._state not in (self._printed, _State()):
                self._print()

    def update(
        self,
        done: int,
        total: int | None,
        seconds_left: float | None,
        best: Mapping[str, float],
        hypervolume: float | None,
        stage: str,
        failed: int,
    ) -> None:
        """Shows where the search stands now.

        Args:
            done: Trials that have ended, the failed ones included.
            total: Trials that the job asks for; None where only time bounds it.
            seconds_left: Seconds until the search is expected to end; None where it is unknown.
            best: The best value so far by objective.
            hypervolume: The hypervolume of the front so far; None before there is one.
            stage: What the search is doing.
            failed: How many trials have failed.
        """
        with self._lock:
            self._state = _State(done, total, seconds_left, dict(best), hypervolume, stage, failed)
            if self._live is None:
                self._print_when_due()

    def _print_when_due(self) -> None:
        changed = self._printed is None or self._printed.stage != self._state.stage
        if changed or self._clock() - self._printed_at >= self._every:
            self._print()

    def _print(self) -> None:
        self._console.print(Text(self._state.line()), soft_wrap=True)
        self._printed, self._printed_at = self._state, self._clock()

    def _picture(self) -> Group:
        """The progress bar, and below it the best values so far."""
        state = self._state
        left = f"{duration(state.seconds_left)} left" if state.seconds_left is not None else ""
        failed = f"{state.failed} failed" if state.failed else ""
        self._progress.update(
            self._task, total=state.total, completed=state.done, stage=printable(state.stage), left=left, failed=failed
        )
        return Group(self._progress, _best_values(state))


def _progress_bar(console: Console) -> tuple[Progress, TaskID]:
    """A bar that is drawn by its owner: it is never started, so that nothing has to stop it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[stage]}", style="bold", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[failed]}", style="red", markup=False),
    )
    progress = Progress(*columns, console=console, auto_refresh=False)
    return progress, progress.add_task("", total=None, stage="", left="", failed="")


def _best_values(state: _State) -> Table:
    table = Table.grid(padding=(0, 2))
    if state.hypervolume is not None:
        table.add_row(Text("  hypervolume", style="dim"), Text(number(state.hypervolume), style="bold green"))
    for name, value in state.best.items():
        table.add_row(Text(f"  best {printable(name)}", style="dim"), Text(number(value)))
    return table
