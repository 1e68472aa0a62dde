"""What published rows were measured on."""

from __future__ import annotations

import dataclasses

import pytest

from kneepoint.hardware_models.published.latencies import PublishedLatency, published_latencies
from kneepoint.hardware_models.published.systems import System, by_system


def _row(**changes: object) -> PublishedLatency:
    return dataclasses.replace(published_latencies()[0], **changes)  # type: ignore[arg-type]  # fields of a row


def test_every_row_has_a_system_of_a_known_family_or_none() -> None:
    found = [System.of(row) for row in published_latencies()]
    assert all(system is None or system.family for system in found)
    assert {system.world for system in found if system is not None} == {"cpu", "accelerator", "microcontroller"}


@pytest.mark.parametrize(
    ("device", "runtime", "precision", "group", "world"),
    [
        ("rpi4b", "ncnn CPU 4 threads", "fp32", "ncnn fp32", "cpu"),
        ("rpi5", "ncnn CPU 4 threads", "fp16", "ncnn fp3216", "cpu"),
        ("rpi4b", "TFLite v2.7.1 (ruy)", "int8", "ruy int8", "cpu"),
        ("graviton3", "TFLite vmaster (xnnpack)", "fp32", "xnnpack fp32", "cpu"),
        ("rpi4b", "OpenCV DNN 4.10 CPU", "fp32", "opencv fp32", "cpu"),
        ("jetson_nano", "OpenCV DNN 4.10 CUDA_FP16", "fp16", "opencv gpu fp3216", "accelerator"),
        ("a100", "PyTorch eager (NGC)", "tf32", "eager fp3216", "accelerator"),
        ("sd845_pixel3", "TFLite NNAPI (DSP)", "int8", "npu int8", "accelerator"),
        ("edgetpu_usb", "Edge TPU runtime (C++)", "int8", "edgetpu int8", "accelerator"),
        ("stm32n6", "STEdgeAI 2.0", "int8", "neural-art int8", "accelerator"),
        ("stm32h747", "STM32Cube.AI 10.0", "int8", "mcu int8", "microcontroller"),
    ],
)
def test_runtimes_that_share_kernels_are_one_group(
    device: str, runtime: str, precision: str, group: str, world: str
) -> None:
    system = System.of(_row(device=device, runtime=runtime, precision=precision))
    assert system is not None
    assert (system.group, system.world) == (group, world)


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        ("a runtime that nobody knows", "fp32"),
        ("PyTorch (CPU)", "fp32"),
        ("ncnn Vulkan GPU", "fp32"),
        ("ncnn CPU 4 threads", "int4"),
        ("TFLite vmaster (xnnpack) [macbook_pro_m1-tflite_cpp]", "int8"),
    ],
)
def test_nothing_is_fitted_to_what_no_family_is_known_for(runtime: str, precision: str) -> None:
    assert System.of(_row(device="rpi4b", runtime=runtime, precision=precision)) is None
    assert by_system([_row(device="rpi4b", runtime=runtime, precision=precision)]) == {}


def test_threads_and_precisions_are_systems_of_their_own() -> None:
    rows = [
        _row(runtime="ncnn CPU", threads=threads, precision=precision)
        for threads in (1, 4)
        for precision in ("fp32", "int8")
    ]
    assert [len(found) for found in by_system([*rows, *rows]).values()] == [2, 2, 2, 2]


def test_only_eager_runtimes_keep_norms_and_only_the_edge_tpu_its_weights() -> None:
    systems = [system for row in published_latencies() if (system := System.of(row)) is not None]
    assert {system.family for system in systems if system.keeps_norms} == {"eager"}
    assert {system.family for system in systems if system.on_chip_weights} == {"edgetpu"}
    assert {system.fusion for system in systems if system.world == "cpu"} == {("direct", "activation")}


@pytest.mark.parametrize(
    ("network", "precision", "family"),
    [
        ("MobileNetV1 1.0 224", "int8", "ruy"),
        ("MobileNetV2 1.0 192", "int8", "ruy"),
        ("EfficientNet-Lite0 224", "int8", "xnnpack"),
        ("MobileNetV1 1.0 224", "fp32", "xnnpack"),
    ],
)
def test_unsigned_bytes_are_not_given_to_xnnpack(network: str, precision: str, family: str) -> None:
    row = _row(device="graviton3", runtime="TFLite vmaster (xnnpack) [aws]", precision=precision, network=network)
    system = System.of(row)
    assert system is not None
    assert (system.family, system.runtime) == (family, f"TFLite vmaster ({family}) [aws]")


@pytest.mark.parametrize(
    ("device", "precision", "scalar"),
    [("xeon_c5_4xlarge", "int8", ("elementwise",)), ("xeon_c5_4xlarge", "fp32", ()), ("graviton3", "int8", ())],
)
def test_bytes_are_added_one_by_one_on_x86(device: str, precision: str, scalar: tuple[str, ...]) -> None:
    system = System.of(_row(device=device, runtime="TFLite v2.7.1 (ruy)", precision=precision))
    assert system is not None
    assert system.scalar == scalar
