"""What a user may hook into a search: told of every trial, and of its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kneepoint.search.front import Front
from kneepoint.search.progress import Status
from kneepoint.search.record import Record


class Callback:
    """Does nothing; override what is of interest. What it raises ends the search, as Ctrl-C does.

    It is called in the search's own process, one call after the other.
    """

    def started(self, job: Mapping[str, Any], directory: Path) -> None:
        """The search begins, or goes on.

        Args:
            job: As ``job.yaml`` has it.
            directory: The run directory.
        """

    def trial_ended(self, record: Record, status: Status) -> None:
        """A trial is in the log.

        Args:
            record: What was measured, at any fidelity; ``record.error`` says why, if it failed.
            status: Where the search stands, with the hypervolume before this trial.
        """

    def ended(self, front: Front | None, directory: Path) -> None:
        """The search is over.

        Args:
            front: What it found; None where it was interrupted or failed.
            directory: The run directory, with ``front.json`` and ``report.html``.
        """
