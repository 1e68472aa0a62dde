"""Where a search stands, for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Status:
    """Where a search stands.

    Attributes:
        stage: What it is doing, in words.
        done: Steps of the stage that are done.
        total: Steps of the stage.
        seconds_left: Estimate for the stage, or None.
        best: The best value of each objective so far.
        hypervolume: Of the front so far.
        failed: Candidates that failed.
    """

    stage: str
    done: int
    total: int
    seconds_left: float | None
    best: Mapping[str, float]
    hypervolume: float
    failed: int


Observer = Callable[[Status], None]


class Progress:
    """Tells an observer where the search stands. What the observer raises ends the search, as Ctrl-C does.

    Args:
        observer: Called in the search's own thread.
    """

    def __init__(self, observer: Observer | None = None) -> None:
        self._observers = [] if observer is None else [observer]
        self.status = Status("starting", 0, 1, None, {}, 0.0, 0)

    def watch(self, observer: Observer) -> None:
        """Tell another one, too; it hears where the search stands now."""
        self._observers.append(observer)
        observer(self.status)

    def tell(self, stage: str, done: int, total: int, seconds_left: float | None = None) -> None:
        """Report a stage."""
        self.status = replace(self.status, stage=stage, done=done, total=total, seconds_left=seconds_left)
        for observer in self._observers:
            observer(self.status)

    def found(self, best: Mapping[str, float], hypervolume: float) -> None:
        """Remember what the front is; the next report carries it."""
        self.status = replace(self.status, best=dict(best), hypervolume=hypervolume)

    def failures(self, count: int) -> None:
        """Remember how many candidates failed; the next report carries it."""
        self.status = replace(self.status, failed=count)

    def long_step(self, what: str, done: int, total: int) -> None:
        """The compressor's reports; training a student is the one step that takes long enough to be watched."""
        if what.startswith("student"):
            self.tell(f"training {what}", done, total)
