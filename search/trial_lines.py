"""The lines of a trial log as they are written, for those who need few of the policies in it.

Reading a policy of a hundred layers takes half a millisecond, most of it for its digest, which the line has as well. So
a line is made a record where that is asked for, and held against its digest then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kneepoint.search.record import Record
from kneepoint.tasks.errors import RunError
from kneepoint.tasks.metrics import Score


@dataclass(frozen=True)
class TrialLine:
    """One whole line.

    Attributes:
        place: The file and the line's number, for messages.
        text: As it is written.
        policy_id: As it says.
        fidelity: As it says.
        baseline: As it says.
        scores: By objective; None for a failure.
        is_whole: Whether all samples were seen.
    """

    place: str
    text: str
    policy_id: str
    fidelity: str
    baseline: str | None
    scores: Mapping[str, Score] | None
    is_whole: bool

    def record(self) -> Record:
        """The line as a record.

        Raises:
            RunError: If it is none, or its policy is not the one that it names.
        """
        try:
            record = Record.from_line(self.text)
        except RunError as error:
            raise RunError(f"{self.place}: {error}; restore the line or remove it") from error
        if record.policy.id != self.policy_id:
            raise RunError(f"{self.place}: its policy is {record.policy.id}; restore the line or remove it")
        return record


def trial_lines(path: Path) -> list[TrialLine]:
    """The lines of ``trials.jsonl``, in order; one that was torn at the end is left out.

    Raises:
        RunError: If a line is not what a record needs, or the file cannot be read.
    """
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; has the run begun?") from error
    return [_line(f"{path}, line {number}", line) for number, line in enumerate(lines, 1)]


def _line(place: str, line: bytes) -> TrialLine:
    try:
        text = line.decode()
        content: dict[str, Any] = json.loads(text)
        scores = content["scores"]
        return TrialLine(
            place=place,
            text=text,
            policy_id=str(content["policy_id"]),
            fidelity=str(content["fidelity"]),
            baseline=content["baseline"],
            scores=None if scores is None else {name: Score.from_json(entry) for name, entry in scores.items()},
            is_whole=content.get("samples") is None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{place}: it is no record ({error}); restore the line or remove it") from error
