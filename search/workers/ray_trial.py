"""A trial of Ray Tune: one worker that measures candidates as long as it is handed any."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.local import LocalWorkers
from kneepoint.search.workers.payload import packed, unpacked
from kneepoint.search.workers.ray_hub import OVER, UNKNOWN
from kneepoint.search.workers.settings import Workers

_ASK_FOR, _BEAT = 10.0, 2.0
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
    """

    hub: Any
    payload: list[Any]
    directory: str
    token: str
    settings: Workers
    threads: int


def work(config: dict[str, Any], post: Post) -> None:
    """Measure until there is nothing more to measure: the function of a Tune trial."""
    name = f"ray-{config['worker']}"
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray has no annotations there
    directory = shared_directory(post) or _own_directory(post)
    crew = LocalWorkers(ray.get(post.payload[0]), post.settings, post.threads, directory, prefix=f"{name}-")
    desk = _Desk(post, name, node, directory, is_shared=shared_directory(post) is not None)
    desk.join()
    try:
        while (order := desk.next()) is not None:
            crew.submit(order)
            while not (outcomes := crew.wait(_BEAT)):
                if not ray.get(post.hub.beat.remote(name)):
                    raise ConnectionResetError("the search goes on without this worker; Tune starts it anew")
            desk.send(outcomes[0])
    finally:
        crew.close()


class _Desk:
    """A worker's way to the hub and back, files included."""

    def __init__(self, post: Post, name: str, node: str, directory: Path, is_shared: bool) -> None:
        self._post = post
        self._name = name
        self._node = node
        self._directory = directory
        self._is_shared = is_shared
        self._before: set[str] = set()

    def next(self) -> Assignment | None:
        """What to measure, with the students it may need on this node; None where there is nothing more."""
        order = None
        while order is None or order == UNKNOWN:
            if order == UNKNOWN:
                self.join()
            order = ray.get(self._post.hub.next.remote(self._name, _ASK_FOR))
        if order == OVER:
            return None
        assignment: Assignment = unpacked(order)
        if not self._is_shared:
            self._before = RunDirectory(self._directory).stored_names()
            if assignment.policy.student:
                self._fetch()
                self._before = RunDirectory(self._directory).stored_names()
        return assignment

    def join(self) -> None:
        """Tell the hub that there is a worker."""
        ray.get(self._post.hub.join.remote(self._name, self._node))

    def send(self, outcome: Outcome) -> None:
        """What came of it, with the files that it left on this node."""
        new = set() if self._is_shared else RunDirectory(self._directory).stored_names() - self._before
        files = {name: (self._directory / name).read_bytes() for name in new}
        content = packed((outcome.assignment.id, outcome.record, outcome.lost, outcome.error, files))
        ray.get(self._post.hub.ended.remote(self._name, outcome.assignment.id, content))

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
