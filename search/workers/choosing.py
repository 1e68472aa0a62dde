"""Which executor a job asks for."""

from __future__ import annotations

from pathlib import Path

from kneepoint.search.evaluator import Evaluator
from kneepoint.search.workers.executor import Executor
from kneepoint.search.workers.in_process import InProcess
from kneepoint.search.workers.local import LocalWorkers
from kneepoint.search.workers.settings import Workers
from kneepoint.search.workers.worker_process import Signal


def executor_of(
    workers: Workers, ray: str | None, evaluator: Evaluator, output: Path, report: Signal | None
) -> Executor:
    """What measures: this process, processes of this machine, or workers of a cluster.

    Args:
        workers: How many, and what each may use.
        ray: The address of a cluster, or None.
        evaluator: Of the run.
        output: A folder for what processes of this machine print.
        report: Told of long steps.

    Raises:
        JobError: If the job cannot travel to its workers, or the cluster cannot be reached.
    """
    if ray is not None:
        from kneepoint.search.workers.ray_workers import RayWorkers  # Ray takes a second to import

        return RayWorkers.at(ray, evaluator, workers)
    if workers.need_processes:
        return LocalWorkers.of(evaluator, workers, output, report)
    return InProcess(evaluator)
