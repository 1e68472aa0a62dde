"""Published peak rates of accelerators."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES, WINOGRAD
from kneepoint.hardware_models.published.peaks import peak_macs_per_ms
from kneepoint.hardware_models.published.samples import samples
from kneepoint.hardware_models.published.systems import System


@pytest.mark.parametrize(
    ("system", "peak"),
    [
        (System("t4", "TensorRT 8.0", None, "int8", "int8"), 65e9),  # 130 trillion operations a second
        (System("v100", "PyTorch eager (NGC)", None, "fp32", "fp16"), 62.5e9),
        (System("v100", "PyTorch eager (NGC)", None, "fp32", "bf16"), None),
        (System("xeon_8480_spr", "ONNX Runtime CPU", None, "int8", "int8"), None),
    ],
)
def test_a_peak_is_that_of_the_device_in_its_precision(system: System, peak: float | None) -> None:
    assert peak_macs_per_ms(system) == peak


def test_no_published_network_is_faster_than_the_peak_of_its_accelerator() -> None:
    for system, entries in samples().items():
        if peak := peak_macs_per_ms(system):
            products = [row for row in range(len(KERNEL_CLASSES)) if row != WINOGRAD]  # which multiply less
            fastest = max(sample.work[products, 0].sum() / sample.latency_ms for sample in entries)
            assert fastest < peak, system
