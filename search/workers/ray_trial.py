"""A trial of Ray Tune: one worker that measures candidates as long as it is handed any."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.local import LocalWorkers
from kneepoint.search.workers.payload import packed, unpacked
from kneepoint.search.workers.ray_hub import OVER, REPLACED, UNKNOWN
from kneepoint.search.workers.settings import Workers
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobFailed, KneepointError

_ASK_FOR, _BEAT = 10.0, 2.0
_WITHOUT = "the search goes on without this worker; Tune starts it anew"
MARK = ".shared"
"""A file of the run directory: a node that reads in it what the search wrote shares the directory."""


@dataclass(frozen=True)
class Post:
    """What every worker of a run needs; it travels through the object store, once a node.

    Attributes:
        hub: The actor that hands out assignments.
        payload: The pickled evaluator, in the object store.
        directory: The run directory.
        token: What the search wrote there.
        settings: Of the workers.
        threads: Of each.
        search_path: Where the search's own process looks for modules: Ray hands it on only to drivers of its own kind.
    """

    hub: Any
    payload: list[Any]
    directory: str
    token: str
    settings: Workers
    threads: int
    search_path: tuple[str, ...] = ()


def work(config: dict[str, Any], post: Post) -> None:
    """Measure until there is nothing more to measure: the function of a Tune trial."""
    name = f"ray-{config['worker']}"
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray has no annotations there
    sys.path.extend(entry for entry in post.search_path if entry not in sys.path)
    shared = shared_directory(post)
    directory = shared or _own_directory(post)
    crew = LocalWorkers(ray.get(post.payload[0]), post.settings, post.threads, directory, prefix=f"{name}-")
    desk = _Desk(post, name, node, directory, is_shared=shared is not None)
    desk.join()
    try:
        while (order := desk.next()) is not None:
            desk.send(_measured(crew, order, desk))
        if shared is None:  # the search has all that was stored here
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        crew.close()


def _measured(crew: LocalWorkers, order: tuple[str, bytes], desk: _Desk) -> Outcome:
    """What comes of an assignment; a job that cannot be loaded here is the search's to hear of, not Tune's to retry."""
    try:
        assignment: Assignment = unpacked(order[1])
    except Exception as failure:  # the user's own modules
        why = f"a worker on {desk.node} cannot load the job: {type(failure).__name__}: {failure}"
        return Outcome(
            Assignment(Policy.build(), "ptq"), error=JobFailed(f"{why}; install what it needs on every node")
        )
    desk.prepare(assignment)
    crew.submit(assignment)
    try:
        while not (outcomes := crew.wait(_BEAT)):
            desk.beat()
    except KneepointError as error:
        return Outcome(assignment, error=error)
    return outcomes[0]


class _Desk:
    """A worker's way to the hub and back, files included."""

    def __init__(self, post: Post, name: str, node: str, directory: Path, is_shared: bool) -> None:
        self._post = post
        self._name = name
        self.node = node
        self._name_of_order = ""
        self._directory = directory
        self._is_shared = is_shared
        self._life = uuid.uuid4().hex
        self._before: set[str] = set()

    def next(self) -> tuple[str, bytes] | None:
        """What to measure, and its id; None where there is nothing more."""
        order: tuple[str, bytes] | None = None
        while order is None or order == UNKNOWN:
            if order == UNKNOWN:
                self.join()
            order = ray.get(self._post.hub.next.remote(self._name, self._life, _ASK_FOR))
        if order == OVER:
            return None
        if order == REPLACED:
            raise ConnectionResetError(_WITHOUT)
        self._name_of_order = order[0]
        return order

    def prepare(self, assignment: Assignment) -> None:
        """Have the students it may need on this node."""
        if not self._is_shared:
            self._before = RunDirectory(self._directory).stored_names()
            if assignment.policy.student:
                self._fetch()
                self._before = RunDirectory(self._directory).stored_names()

    def beat(self) -> None:
        """Tell the hub that the worker is still at it.

        Raises:
            ConnectionResetError: If the search goes on without it.
        """
        if not ray.get(self._post.hub.beat.remote(self._name, self._life)):
            raise ConnectionResetError(_WITHOUT)

    def join(self) -> None:
        """Tell the hub that there is a worker."""
        ray.get(self._post.hub.join.remote(self._name, self._life, self.node))

    def send(self, outcome: Outcome) -> None:
        """What came of it, with the files that it left on this node."""
        new = set() if self._is_shared else RunDirectory(self._directory).stored_names() - self._before
        files = {name: (self._directory / name).read_bytes() for name in new}
        name = self._name_of_order
        content = packed((name, outcome.record, outcome.lost, outcome.error, files))
        ray.get(self._post.hub.ended.remote(self._name, self._life, name, content))

    def _fetch(self) -> None:
        """Students that others trained: what they weigh before what names them."""
        offered = ray.get(self._post.hub.files.remote(self._before))
        for name in sorted(offered, key=lambda one: one.endswith(".json")):
            RunDirectory(self._directory).keep(name, ray.get(offered[name][0]))


def shared_directory(post: Post) -> Path | None:
    """The run directory, if this node sees it."""
    path = Path(post.directory)
    try:
        return path if (path / MARK).read_text() == post.token else None
    except OSError:
        return None


def _own_directory(post: Post) -> Path:
    """A folder of this node, shared by its workers."""
    path = Path(tempfile.gettempdir()) / f"kneepoint-{os.getuid()}-{post.token}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
