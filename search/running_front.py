"""The front while the search goes on: kept up to date candidate by candidate, and on disk whenever it changes."""

from __future__ import annotations

from collections.abc import Sequence

from kneepoint.search.front import Candidate, Front, losses
from kneepoint.search.front_file import front_content
from kneepoint.search.progress import Progress
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trials import Trials


class RunningFront:
    """The front of what was measured so far.

    A candidate is compared with the front alone, not with all others: the front of a front and one more candidate is
    the front of them all. A file that an earlier process wrote stays as it is until the front changes.

    Args:
        trials: Of the run.
        directory: Where ``front.json`` is.
        progress: Told of the best values.

    Attributes:
        front: As it stands.
    """

    def __init__(self, trials: Trials, directory: RunDirectory, progress: Progress) -> None:
        self._trials = trials
        self._directory = directory
        self._progress = progress
        self._take(trials.front(trials.candidates(trials.proposed())))
        self._announce()
        if not directory.front_file.exists():
            self._write()

    def add(self, candidate: Candidate) -> None:
        """Take a candidate in, if it belongs to the front."""
        if not candidate.feasible or self._covers(candidate):
            return
        self._take(self._trials.front([*self.front.everyone, candidate]))
        self._announce()
        self._write()

    def _covers(self, candidate: Candidate) -> bool:
        """Whether a member is at least as good in everything."""
        point = losses([candidate], self.front.axes)
        return bool((self._losses <= point).all(axis=1).any())

    def _take(self, front: Front) -> None:
        self.front = front
        self._losses = losses(front, front.axes)

    def _announce(self) -> None:
        members: Sequence[Candidate] = self.front
        best = {
            axis.name: min((one.values[axis.name] for one in members), key=axis.scale)
            for axis in self.front.axes
            if members
        }
        self._progress.found(best, self.front.hypervolume)

    def _write(self) -> None:
        trials = self._trials
        texts = trials.job.constraint_texts
        self._directory.write_front(front_content(trials.job.task.name, self.front, {}, trials.teacher, texts))
