"""Times visits to models in a process with pinned threads: a line of JSON in for each, a line of JSON out.

    python -m benchmarks.hardware_models_worker THREADS REFERENCE.onnx

It is started by ``hardware_models_measuring.py``. A visit is a round of ``kneepoint measure``: it opens the model anew,
because where weights and buffers lie in memory moves a latency by about 1 %.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time

import numpy as np

from kneepoint.deployment.machine import cores_for
from kneepoint.deployment.measuring_worker import Model, OpenModel, summary, time_round

REFERENCE_SECONDS = 0.02


def main() -> None:
    """Serve until the input ends."""
    threads = int(sys.argv[1])
    pin(threads)
    gc.disable()  # a collection is no part of an inference
    rng = np.random.default_rng(0)
    reference = OpenModel(Model(sys.argv[2], threads, 1, {}))
    for line in sys.stdin:
        asked = json.loads(line)
        before = median_us(reference, REFERENCE_SECONDS)
        blocks = time_round([Model(asked["path"], threads, asked["batch"], {})], asked["seconds"], rng)
        readings = [before, median_us(reference, REFERENCE_SECONDS)]
        print(json.dumps({"us": 1e3 * summary(blocks)["medians"][0], "reference_us": readings}), flush=True)


def pin(threads: int) -> None:
    """Run on as many cores as there are threads, where the system lets a process choose."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores_for(threads))


def median_us(model: OpenModel, seconds: float) -> float:
    """Microseconds of a run, after a warm-up."""
    runs = model.warm_up()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        times += model.block(runs)
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    main()
