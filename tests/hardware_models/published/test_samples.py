"""Published latencies of networks of the zoo, as what a fit sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES
from kneepoint.hardware_models.published.latencies import PublishedLatency, published_latencies
from kneepoint.hardware_models.published.samples import Sample, families, samples
from kneepoint.hardware_models.published.systems import System

NETWORKS = ("MobileNetV1 1.0 224", "MobileNetV1 0.5 128", "SqueezeNet v1.1 224")


def _row(network: str, latency_ms: float = 10.0, **changes: object) -> PublishedLatency:
    plain = dataclasses.replace(
        published_latencies()[0], device="rpi4b", runtime="ncnn CPU", threads=4, precision="fp32", batch=1, power_w=None
    )
    return dataclasses.replace(plain, network=network, latency_ms=latency_ms, **changes)  # type: ignore[arg-type]  # fields


def test_what_was_published_twice_is_one_sample_of_the_median() -> None:
    rows = [_row(network) for network in NETWORKS] + [_row(NETWORKS[0], 20.0, power_w=4.0), _row(NETWORKS[0], 12.0)]
    (found,) = samples(rows).values()
    first = next(sample for sample in found if sample.network == NETWORKS[0])
    assert (len(found), first.latency_ms, first.power_w, first.spread) == (3, 12.0, 4.0, 2.0)
    assert families(samples(rows)) == ("MobileNetV1", "SqueezeNet")


@pytest.mark.parametrize(
    "bad", [_row("a network that nobody knows"), _row("VGG-16 224", batch=64), _row("VGG-16 224", precision="int4")]
)
def test_rows_that_nothing_can_be_fitted_to_are_left_out(bad: PublishedLatency) -> None:
    (found,) = samples([*(_row(network) for network in NETWORKS), bad]).values()
    assert {sample.network for sample in found} == set(NETWORKS)


def test_without_rows_there_is_no_system() -> None:
    assert samples([]) == {}
    assert samples([_row("a network that nobody knows")]) == {}


def test_a_samples_work_is_that_of_the_networks_kernels() -> None:
    found = next(iter(samples([_row(network) for network in NETWORKS]).values()))
    work = next(sample for sample in found if sample.network == "MobileNetV1 1.0 224").work
    by_class = dict(zip(KERNEL_CLASSES, work[:, 0], strict=True))
    assert by_class["depthwise"] == 17_385_984  # MobileNets (Howard et al. 2017), table 2: 3 % of 569 million
    assert by_class["pointwise"] == pytest.approx(0.95 * 569e6, rel=0.01)
    assert by_class["winograd"] == by_class["matmul"] == 0


def test_runtimes_without_winograd_have_none_of_its_work() -> None:
    parts = []
    for runtime in ("ncnn CPU", "TFLite v2.7.1 (ruy)"):
        system = System.of(_row("x", runtime=runtime))
        assert system is not None
        parts.append(dict(zip(KERNEL_CLASSES, _sample(system, "VGG-16 224").work[:, 0], strict=True)))
    fast, slow = parts
    assert slow["winograd"] == fast["convolution"] == 0
    assert slow["convolution"] == fast["winograd"] > 15e9


@pytest.mark.parametrize(("runtime", "taken"), [("TFLite v2.7.1 (ruy)", 3), ("ONNX Runtime CPU", 3), ("ncnn CPU", 4)])
def test_detectors_that_suppress_boxes_on_the_processor_are_left_out(runtime: str, taken: int) -> None:
    rows = [_row(network, runtime=runtime) for network in (*NETWORKS, "SSD-MobileNetV1 300")]
    (found,) = samples(rows).values()
    assert len(found) == taken


def test_an_edge_tpu_streams_what_it_has_no_room_for() -> None:
    system = System.of(_row("x", device="edgetpu_usb", runtime="Edge TPU runtime (C++)", precision="int8"))
    assert system is not None
    large, small = (_sample(system, name) for name in ("VGG-16 224", "MobileNetV1 1.0 224"))
    assert small.streamed_ms == 0
    assert large.streamed_ms == pytest.approx((138.3e6 - 7.5e6) / 0.4e6, rel=0.01)


def _sample(system: System, network: str) -> Sample:
    return Sample(system, network, "any", 1, 1.0, None, 1.0)


def test_every_published_sample_is_usable() -> None:
    found = [sample for entries in samples().values() for sample in entries]
    assert len(found) > 2500
    assert all(np.isfinite(sample.latency_ms) and sample.latency_ms > 0 and sample.spread >= 1 for sample in found)
    assert all(sample.family and sample.batch <= 8 for sample in found)
