"""Rates that are fitted to published latencies of whole networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES
from kneepoint.hardware_models.published.hierarchy import Hierarchy
from kneepoint.hardware_models.published.priors import PRIORS, SCALAR
from kneepoint.hardware_models.published.samples import Sample
from kneepoint.hardware_models.published.systems import System

NETWORKS = (
    "MobileNetV1 1.0 224", "MobileNetV1 0.5 128", "MobileNetV2 1.0 224", "SqueezeNet v1.1 224", "ResNet-50 224",
    "VGG-16 224", "GoogLeNet 224", "ShuffleNetV2 224", "AlexNet 224", "EfficientNet-B0 224",
)  # fmt: skip
PRIOR = PRIORS["cpu"]
FAST, SLOW = (System("a board", "ncnn CPU", threads, "fp32", "fp32") for threads in (4, 1))


def _time(sample: Sample, speed: float, factors: dict[int, float]) -> float:
    """Milliseconds at the costs that are believed, some of them changed."""
    costs = np.exp(PRIOR.cost) * speed
    for place, factor in factors.items():
        costs[place] *= factor
    work = sample.work[:, 0] + (sample.work[:, 1:] * np.exp(PRIOR.part)).sum(1)
    return float(work @ costs[:-2] + sample.kernels * costs[-2] + costs[-1])


def _world(speeds: dict[System, float], factors: dict[int, float]) -> dict[System, list[Sample]]:
    empty = {s: [Sample(s, name, name, 1, 1.0, None, 1.0) for name in NETWORKS] for s in speeds}
    return {
        system: [dataclasses.replace(s, latency_ms=_time(s, speeds[system], factors)) for s in entries]
        for system, entries in empty.items()
    }


def test_what_is_believed_is_found_when_it_is_true() -> None:
    fit = Hierarchy.of(_world({FAST: 1e-7, SLOW: 4e-7}, {}), PRIOR)
    assert [fit.latency_ms(sample) for sample in fit.samples] == pytest.approx(
        [sample.latency_ms for sample in fit.samples], rel=2e-3
    )
    costs, parts = fit.costs_ms(SLOW)
    assert costs == pytest.approx(np.exp(PRIOR.cost) * 4e-7, rel=1e-2)
    assert parts == pytest.approx(np.exp(PRIOR.part), rel=2e-2)


def test_a_special_class_is_found_and_a_network_that_was_not_seen_is_predicted() -> None:
    depthwise, launch = KERNEL_CLASSES.index("depthwise"), len(KERNEL_CLASSES)
    world = _world({FAST: 1e-7, SLOW: 4e-7}, {depthwise: 2.0, launch: 5.0})
    unseen = {system: entries[2] for system, entries in world.items()}
    fit = Hierarchy.of({system: [*entries[:2], *entries[3:]] for system, entries in world.items()}, PRIOR)
    for system, sample in unseen.items():
        assert fit.latency_ms(sample) == pytest.approx(sample.latency_ms, rel=0.1)
        costs, _ = fit.costs_ms(system)
        assert costs[depthwise] / costs[0] == pytest.approx(2 * np.exp(PRIOR.cost[depthwise]), rel=0.3)


def test_systems_of_one_runtime_learn_from_each_other() -> None:
    """A phone with one network to its name takes the costs of classes of the boards that share its runtime."""
    depthwise = KERNEL_CLASSES.index("depthwise")
    world = _world({FAST: 1e-7, SLOW: 4e-7, System("a phone", "ncnn CPU", 1, "fp32", "fp32"): 2e-7}, {depthwise: 3.0})
    phone, entries = list(world.items())[-1]
    seen = {**world, phone: [entry for entry in entries if entry.network == "ResNet-50 224"]}
    mobile = next(entry for entry in entries if entry.network == "MobileNetV1 1.0 224")
    error = [
        abs(np.log(fit.latency_ms(mobile) / mobile.latency_ms)) for fit in (_fit(seen), _fit({phone: seen[phone]}))
    ]
    assert error[0] < 0.2 < error[1]


def _fit(found: dict[System, list[Sample]]) -> Hierarchy:
    return Hierarchy.of(found, PRIOR)


def test_one_wrong_row_does_not_spoil_the_others() -> None:
    world = _world({FAST: 1e-7, SLOW: 4e-7}, {})
    wrong = dataclasses.replace(world[FAST][0], latency_ms=world[FAST][0].latency_ms * 10)
    fit = Hierarchy.of({**world, FAST: [wrong, *world[FAST][1:]]}, PRIOR)
    errors = [fit.latency_ms(sample) / sample.latency_ms - 1 for sample in fit.samples[1:]]
    assert np.abs(errors).max() < 0.1


def test_levels_are_the_world_its_runtimes_and_their_precisions() -> None:
    integers = dataclasses.replace(FAST, precision="int8", published_precision="int8")
    fit = _fit(_world({FAST: 1e-7, integers: 1e-7}, {}))
    assert fit.levels == ("all", "all/ncnn", "all/ncnn/ncnn fp32", "all/ncnn/ncnn int8")


def test_kernels_of_single_elements_are_believed_slow() -> None:
    """VGG has nothing elementwise, so that what is believed of it stays."""
    costs = []
    for device in ("rpi4b", "xeon"):
        system = System(device, "TFLite (ruy)", 1, "int8", "int8")
        fit = Hierarchy.of({system: [Sample(system, "VGG-16 224", "VGG", 1, 500.0, None, 1.0)]}, PRIOR)
        costs.append(fit.costs_ms(system)[0][KERNEL_CLASSES.index("elementwise")])
    assert costs[1] / costs[0] == pytest.approx(SCALAR)


def test_what_a_data_sheet_says_bounds_what_large_networks_take() -> None:
    """One small network says little of the speed of an accelerator, and its peak much."""
    costs = {}
    for device in ("t4", "nothing is known of"):
        system = System(device, "TensorRT", 1, "int8", "int8")
        sample = Sample(system, "SqueezeNet v1.1 224", "SqueezeNet", 1, 1.0, None, 1.0)
        costs[device] = Hierarchy.of({system: [sample]}, PRIORS["accelerator"]).costs_ms(system)[0][0]
    peak = 65e9  # multiply-accumulates a millisecond
    assert 0.3 < 1 / costs["t4"] / peak < 3
    assert not 0.3 < 1 / costs["nothing is known of"] / peak < 3


def test_a_system_that_was_not_fitted_is_refused() -> None:
    fit = _fit(_world({FAST: 1e-7}, {}))
    with pytest.raises(ValueError, match="is not in list"):
        fit.costs_ms(SLOW)
