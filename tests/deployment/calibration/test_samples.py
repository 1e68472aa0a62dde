from __future__ import annotations

from pathlib import Path

import numpy as np

from kneepoint.deployment.calibration.samples import Sample, SampleTable, TimedKernel, read_samples
from kneepoint.hardware_models.kernels import Kernel


def add(elements: int) -> Kernel:
    return Kernel("add", "add", "fp32", elements=elements)


def test_samples_come_back_from_their_lines(tmp_path: Path) -> None:
    sample = Sample(3, 2, True, "head", 4, 12.5, False, 0.1, TimedKernel.all([add(10)], {}))
    file = tmp_path / "samples.jsonl"
    file.write_text(f"header\n{sample.to_line()}\n{sample.to_line()[:40]}")
    assert list(read_samples(file)) == [sample]


def test_a_table_holds_the_kernels_of_all_samples_end_to_end() -> None:
    first = Sample(0, 1, False, "", 1, 5.0, True, 0.1, TimedKernel.all([add(10), add(20)], {0: 1.0}))
    second = Sample(1, 1, False, "", 1, 9.0, False, 0.1, TimedKernel.all([add(30)], {0: 2.0}))
    table = SampleTable.of([first, second])
    assert table.workload.elements.tolist() == [10, 20, 30]
    assert table.network.tolist() == [0, 0, 1]
    assert np.isnan(table.microseconds).tolist() == [False, True, False]
    assert (table.total_us.tolist(), table.complete.tolist()) == ([5.0, 9.0], [True, False])
