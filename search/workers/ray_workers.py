"""Workers on a Ray cluster: each is a trial of Ray Tune that measures many candidates.

Tune starts them where there is room, restarts those whose node was lost, and starts more as nodes come; what they
measure is handed out by the search through :class:`Hub`, because a trial a candidate takes Tune about a second.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import ray
from ray import tune
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kneepoint.search.evaluator import Evaluator
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.workers import ray_hub
from kneepoint.search.workers.assignment import Assignment, Outcome
from kneepoint.search.workers.payload import packed, unpacked
from kneepoint.search.workers.ray_hub import Delivery, Hub
from kneepoint.search.workers.ray_trial import MARK, Post, work
from kneepoint.search.workers.settings import Workers
from kneepoint.search.workers.worker_state import WorkerState
from kneepoint.tasks.errors import JobError, JobFailed

_ANSWER_WITHIN, _HUB_WITHIN = 120.0, 600.0
_CONNECT_WITHIN = 5.0
_FIRST_WORKER_WITHIN = 120.0
_STOP_WITHIN = 30.0
_AHEAD = 10
"""A tenth of the workers finds the next assignment waiting."""
_RESTARTED = {"max_restarts": -1, "max_task_retries": -1}
"""An actor whose node is lost is started on another; what it knew it is told again."""
_stops: dict[str, threading.Event] = {}


class _Stop(tune.Stopper):
    """Ends Tune's loop when the search is over; picklable, as Tune writes it to disk."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Trials end by themselves."""
        return False

    def stop_all(self) -> bool:
        """Whether the search is over."""
        event = _stops.get(self._token)
        return event is not None and event.is_set()


class RayWorkers:
    """An executor on a cluster.

    Args:
        evaluator: Of the run.
        settings: How many workers, and what each takes.
        token: Of the run directory.
        leave: Whether to leave the cluster at the end.
    """

    def __init__(self, evaluator: Evaluator, settings: Workers, token: str, leave: bool) -> None:
        self._evaluator = evaluator
        self._settings = settings
        self._token = token
        self._leave = leave
        self._running: dict[str, Assignment] = {}
        self._states: list[WorkerState] = []
        self._epoch: str | None = None
        self._began, self._is_warned = time.monotonic(), False
        self._failure: BaseException | None = None
        node = ray.get_runtime_context().get_node_id()
        # Hard: Ray ignores a soft affinity of an actor without resources, and without this node there is no search.
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = ray.remote(Hub).options(num_cpus=0, max_concurrency=10_000, scheduling_strategy=strategy, **_RESTARTED)
        self._hub = cast(Any, actor.remote(ray_hub.SILENCE))
        self._asked(self._hub.stir.remote(), _HUB_WITHIN)
        one = replace(settings, count=1, cpus=None, gpus=0.0, retries=0)
        directory = str(evaluator.directory.resolve())
        payload = [ray.put(packed(evaluator))]
        self._post = Post(self._hub, payload, directory, token, one, evaluator.threads, tuple(sys.path))
        self._tell_all()
        self._scratch = tempfile.mkdtemp(prefix="kneepoint-tune-")
        _stops[token] = threading.Event()
        self._tune = threading.Thread(target=self._run_tune, daemon=True, name="ray-tune")
        self._tune.start()

    @classmethod
    def at(cls, address: str, evaluator: Evaluator, settings: Workers) -> RayWorkers:
        """Workers on the cluster at ``address``.

        Raises:
            JobError: If it cannot be reached, or the job cannot travel.
        """
        token = uuid.uuid4().hex
        evaluator.directory.mkdir(parents=True, exist_ok=True)
        (evaluator.directory / MARK).write_text(token)
        leave = _connect(address)
        return cls(evaluator, settings, token, leave)

    @property
    def room(self) -> int:
        """Workers that are there and have nothing to do; of many, a few assignments more."""
        there = len(self._states)
        return max(0, there + there // _AHEAD - len(self._running))  # some that had work may be lost

    def submit(self, assignment: Assignment) -> None:
        """Handed to the next worker that asks."""
        self._running[assignment.id] = assignment
        self._asked(self._hub.push.remote(assignment.id, packed(assignment)))

    def wait(self, seconds: float) -> list[Outcome]:
        """What ended, or was lost.

        Raises:
            JobFailed: If the cluster is gone.
        """
        delivery: Delivery = self._asked(self._hub.drain.remote(seconds))
        if self._epoch is None:
            self._epoch = delivery.epoch
        elif self._epoch != delivery.epoch:
            self._epoch = delivery.epoch
            self._tell_all()
        self._states = delivery.workers
        self._warn_of_no_worker()
        outcomes = [self._outcome(*unpacked(content)) for content in delivery.outcomes]
        outcomes += [self._outcome(name, None, reason, None, {}) for name, reason in delivery.lost]
        if not delivery.workers and not self._tune.is_alive():
            raise JobFailed(f"Ray Tune ended before the search did: {self._failure or 'no worker could be started'}")
        return [outcome for outcome in outcomes if outcome is not None]

    def workers(self) -> Sequence[WorkerState]:
        """Those that are there."""
        return self._states

    def close(self) -> None:
        """Stop them, and leave the cluster."""
        _stops[self._token].set()
        if ray.is_initialized():
            try:
                ray.get(self._hub.stop.remote(), timeout=_STOP_WITHIN)
                self._tune.join(_STOP_WITHIN)
            except (RayError, OSError):  # the cluster is gone already
                pass
            if self._leave:
                ray.shutdown()
        del _stops[self._token]
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _warn_of_no_worker(self) -> None:
        """Say once why nothing happens, where the cluster has no room for what a worker asks for."""
        if self._states or self._is_warned or time.monotonic() - self._began < _FIRST_WORKER_WITHIN:
            return
        self._is_warned = True
        free = ray.available_resources()  # type: ignore[no-untyped-call]  # Ray has no annotations there
        asked = ", ".join(f"{amount:g} {name}" for name, amount in self._resources().items())
        have = ", ".join(f"{free.get(name, 0.0):g} {name}" for name in self._resources())
        warnings.warn(
            f"no worker has begun in {_FIRST_WORKER_WITHIN:g} s: each asks for {asked}, and {have} are free: "
            "they may be slow to start; else add nodes, or ask for less (workers:)",
            stacklevel=2,
        )

    def _resources(self) -> dict[str, float]:
        """What a worker takes, by Ray's names."""
        settings = self._settings
        cpus = settings.cpus or float(self._evaluator.threads)
        memory = {} if settings.memory_gb is None else {"memory": settings.memory_gb * 1e9}
        return {"CPU": cpus, "GPU": settings.gpus, **memory}

    def _tell_all(self) -> None:
        """Tell the hub what it needs to know: the students that there are, and what is to be measured."""
        directory = RunDirectory(self._evaluator.directory)
        for name in sorted(directory.stored_names()):
            self._offer(name, directory.stored(name).read_bytes())
        for name, assignment in self._running.items():
            self._asked(self._hub.push.remote(name, packed(assignment)))

    def _outcome(self, name: str, record: Any, lost: Any, error: Any, files: dict[str, bytes]) -> Outcome | None:
        """What ended; None for what was taken for lost before."""
        assignment = self._running.pop(name, None)
        for file, data in files.items():
            self._offer(file, data)
        return None if assignment is None else Outcome(assignment, record, lost, error, files)

    def _offer(self, name: str, data: bytes) -> None:
        """Let every node have a student."""
        if name.startswith("students/"):
            self._asked(self._hub.offer.remote(name, [ray.put(data)]))

    def _asked(self, reference: Any, seconds: float = _ANSWER_WITHIN) -> Any:
        try:
            return ray.get(reference, timeout=seconds)
        except RayError as error:
            reason = (str(error).splitlines() or [""])[0]
            raise JobFailed(
                f"the Ray cluster is lost: {type(error).__name__}: {reason}; 'kneepoint resume' goes on when it is back"
            ) from error

    def _run_tune(self) -> None:
        try:
            self._tuner().fit()
        except BaseException as failure:
            self._failure = failure

    def _tuner(self) -> tune.Tuner:
        return tune.Tuner(
            tune.with_resources(tune.with_parameters(work, post=self._post), self._resources()),
            param_space={"worker": tune.grid_search(list(range(self._settings.count)))},
            run_config=tune.RunConfig(
                name=f"kneepoint-{self._token[:8]}",
                storage_path=self._scratch,
                failure_config=tune.FailureConfig(max_failures=-1),
                stop=_Stop(self._token),
                callbacks=[],
                verbose=0,
            ),
        )


def _connect(address: str) -> bool:
    """Join the cluster; whether this process had not joined one before."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    for name in ("ray.tune", "ray.air"):  # a lost worker is said by the search itself
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        return False
    _require_answer(address)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError, OSError, RayError) as error:
        raise _no_cluster(address, (str(error).strip().splitlines() or [""])[0]) from error
    return True


def _require_answer(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would go on asking for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> JobError:
    return JobError(
        f"there is no Ray cluster at {address!r}: {reason}; start one with 'ray start --head', or give 'auto', "
        "HOST:PORT or ray://HOST:PORT"
    )
