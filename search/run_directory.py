"""The folder that holds all a run knows."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from kneepoint.compression.student_store import write_atomically
from kneepoint.search.job import Job, same_job
from kneepoint.search.trial_log import TrialLog
from kneepoint.search.workers.assignment import Outcome
from kneepoint.tasks.errors import RunError

_STORED = re.compile(r"students/[0-9a-f]{16,64}\.(json|safetensors)|artifacts/[0-9a-f]{64}\.safetensors")
_SENSITIVITIES = "kneepoint.sensitivities/1"


class RunDirectory:
    """Paths and small files of one run.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def job_file(self) -> Path:
        """The resolved job."""
        return self.path / "job.yaml"

    @property
    def study_file(self) -> Path:
        """The Optuna study, mirrored from the log."""
        return self.path / "study.db"

    @property
    def front_file(self) -> Path:
        """The front, its baselines and its reference."""
        return self.path / "front.json"

    @property
    def sensitivities_file(self) -> Path:
        """How much each choice alone changes the teacher; where there is none yet, it is measured."""
        return self.path / "sensitivities.json"

    @property
    def events_file(self) -> Path:
        """What happened, a line of JSON an event."""
        return self.path / "events.jsonl"

    @property
    def status_file(self) -> Path:
        """Where the run stands, or how it ended."""
        return self.path / "status.json"

    @property
    def worker_output(self) -> Path:
        """What worker processes print."""
        return self.path / "logs"

    @property
    def artifacts(self) -> Path:
        """Stored networks and exported models."""
        return self.path / "artifacts"

    @property
    def log_file(self) -> Path:
        """The trial log, or the export of one in a database."""
        return self.path / "trials.jsonl"

    def log(self) -> TrialLog:
        """The trial log, read."""
        return TrialLog(self.log_file)

    def open_for(self, job: Job) -> bool:
        """Start the run here, or go on with it.

        Returns:
            Whether there was a run to go on with.

        Raises:
            RunError: If the folder holds another job or something else, or another process is at work in it.
        """
        wanted = job.to_json()
        exists = self.job_file.exists()
        self._refuse_other_content(wanted)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run directory {self.path}: {error.strerror}") from error
        self.lock()
        self._replace(self.job_file, yaml.safe_dump(wanted, sort_keys=False).encode())
        return exists

    def _refuse_other_content(self, wanted: dict[str, Any]) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; choose a folder with out= or --out")
        if self.job_file.exists():
            differing = same_job(self.read_job(), wanted)
            if differing is not None:
                raise RunError(
                    f"{self.path} holds the run of another job ({differing} differs); choose another folder with out= "
                    "or --out, or delete it"
                )
        elif self.path.exists() and any(not _left_by_a_start(entry.name) for entry in self.path.iterdir()):
            raise RunError(f"{self.path} is not empty and holds no run; choose another folder with out= or --out")

    def read_job(self) -> dict[str, Any]:
        """The job as it was resolved.

        Raises:
            RunError: If there is none, or it is malformed.
        """
        if not self.job_file.is_file():
            raise RunError(f"a run directory holds a job.yaml; there is none in {self.path}")
        try:
            job = yaml.safe_load(self.job_file.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunError(f"{self.job_file} must be YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(job, dict) or job.get("schema") != "kneepoint.job/1":
            raise RunError(f"{self.job_file} must have schema kneepoint.job/1")
        return job

    def lock(self) -> None:
        """Refuse a second process; the lock ends with this one, however it ends.

        Raises:
            RunError: If another process holds it, or the file system has no locks.
        """
        lock = (self.path / "run.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise self._not_locked(error, holder) from error
        self._lock = lock
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()

    def _not_locked(self, error: OSError, holder: str) -> RunError:
        if isinstance(error, BlockingIOError):
            who = f" ({holder})" if holder else ""
            return RunError(f"another process{who} is at work in {self.path}; wait for it, or stop it")
        return RunError(
            f"cannot lock {self.path}: {error.strerror}; a run directory lies where files can be locked: choose "
            "another one with out= or --out"
        )

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write_front(self, content: dict[str, Any]) -> None:
        """Replace ``front.json`` as a whole.

        Raises:
            RunError: If there is no room for it.
        """
        self._replace(self.front_file, json.dumps(content, indent=1, allow_nan=False).encode())

    def read_front(self) -> dict[str, Any]:
        """What :meth:`write_front` wrote.

        Raises:
            RunError: If there is none, or it is malformed.
        """
        if not self.front_file.is_file():
            raise RunError(f"there is no front in {self.path} (no front.json); has the run begun?")
        try:
            content = json.loads(self.front_file.read_text())
        except ValueError as error:
            raise RunError(f"{self.front_file} must be JSON: {error}") from error
        if not isinstance(content, dict) or content.get("schema") != "kneepoint.front/1":
            raise RunError(f"{self.front_file} must have schema kneepoint.front/1")
        return content

    def write_sensitivities(self, values: Mapping[str, Sequence[float]]) -> None:
        """Keep what was measured, by parameter and choice.

        Raises:
            RunError: If there is no room for it.
        """
        content = {"schema": _SENSITIVITIES, "values": {name: list(entry) for name, entry in values.items()}}
        self._replace(self.sensitivities_file, json.dumps(content, indent=1, allow_nan=False).encode())

    def read_sensitivities(self) -> dict[str, list[float]] | None:
        """What :meth:`write_sensitivities` wrote; None where that is missing or not whole, as it can be made again."""
        try:
            content = json.loads(self.sensitivities_file.read_bytes())
            if content["schema"] != _SENSITIVITIES:
                return None
            return {str(name): [float(value) for value in entry] for name, entry in content["values"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def take(self, outcome: Outcome) -> None:
        """Keep the files that a worker stored in another folder.

        Raises:
            RunError: If a name is none of a stored student or network, or there is no room.
        """
        for name in sorted(outcome.files, key=lambda one: one.endswith(".json")):  # what names weights comes last
            self.keep(name, outcome.files[name])

    def keep(self, name: str, data: bytes) -> None:
        """Store a student or network under FOLDER/FILE, unless it is there.

        Raises:
            RunError: As :meth:`take`.
        """
        path = self.stored(name)
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            self._replace(path, data)

    def stored_names(self) -> set[str]:
        """All students and networks that are stored, as FOLDER/FILE."""
        files = (path for folder in ("students", "artifacts") for path in (self.path / folder).glob("*"))
        names = (f"{path.parent.name}/{path.name}" for path in files)
        return {name for name in names if _STORED.fullmatch(name)}

    def stored(self, name: str) -> Path:
        """The path of a stored student or network, from ``FOLDER/FILE``.

        Raises:
            RunError: If it is no such name.
        """
        if not _STORED.fullmatch(name):
            raise RunError(
                f"a stored file is called students/HEX or artifacts/HEX, .safetensors or .json; got {name!r}"
            )
        return self.path / name

    def _replace(self, path: Path, data: bytes) -> None:
        try:
            write_atomically(path, data)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}; make room and resume the run") from error


def _left_by_a_start(name: str) -> bool:
    """Whether a file may be what a run left that was killed before it had a job file."""
    return name == "run.lock" or name.startswith(".job.yaml.")
