"""Where a job's trial log and its study are: files, or a database."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from contextlib import AbstractContextManager

from kneepoint.search.job import Job
from kneepoint.search.log_store import Log
from kneepoint.search.mirror import STUDY_NAME
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.storage_url import storage_url
from kneepoint.search.study_file import NoStudy, StudyFile


def log_of(job: Job, directory: RunDirectory) -> Log:
    """The log of a job, read; a driver that comes back to its directory has the number it had.

    Raises:
        RunError: If it cannot be read.
    """
    if job.storage is None:
        return directory.log()
    from kneepoint.search.database_log import DatabaseLog, run_name
    from kneepoint.search.shared_log import SharedLog

    place = f"{socket.gethostname()}:{directory.path.resolve()}"
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    return SharedLog(DatabaseLog(job.storage, run_name(job.to_json()), name), directory)


def study_file(job: Job, directory: RunDirectory, log: Log) -> AbstractContextManager[StudyFile | NoStudy]:
    """The study that mirrors the log; of several drivers the first keeps it."""
    if job.storage is None:
        return StudyFile.at(directory.study_file, job)
    if log.driver > 0:
        return contextlib.nullcontext(NoStudy())
    from kneepoint.search.database_log import run_name

    url = storage_url(job.storage)
    return StudyFile(job, url.render_as_string(hide_password=False), f"{STUDY_NAME}-{run_name(job.to_json())}")
