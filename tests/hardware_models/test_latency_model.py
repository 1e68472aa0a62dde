from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.hardware_models.features import TERMS, features, terms, variants
from kneepoint.hardware_models.kernels import GEOMETRY, KernelFormat, Layout
from kneepoint.hardware_models.latency_model import LatencyModel, VariantModel
from kneepoint.hardware_models.liveness import Buffers
from kneepoint.hardware_models.regression_trees import RegressionTrees
from kneepoint.hardware_models.surroundings import SURROUNDINGS
from kneepoint.hardware_models.workload import FORMAT_CODES, KIND_CODES, LAYOUT_CODES, Workload


def one(kind: str, format_: KernelFormat = "fp32", layout: Layout = "", function: str = "", **sizes: int) -> Workload:
    """A workload of one kernel."""
    geometry = [sizes.pop(name, 0) for name in GEOMETRY]
    names = ("macs", "input_bytes", "weight_bytes", "output_bytes", "elements")
    columns: dict[str, Any] = {name: np.array([sizes.get(name, 0)], np.int64) for name in names}
    return Workload(
        names=("kernel",),
        functions=(function,),
        kind=np.array([KIND_CODES[kind]], np.int16),
        format=np.array([FORMAT_CODES[format_]], np.int8),
        layout=np.array([LAYOUT_CODES[layout]], np.int8),
        geometry=np.array([geometry], np.int64),
        surroundings=np.zeros((1, len(SURROUNDINGS)), np.int64),
        **columns,
        storage_bytes=0,
        resident_bytes=0,
        parameters=0,
        peak_activation_bytes=0,
        buffers=Buffers.none(),
    )


RELU = one("activation", function="relu", elements=1000, input_bytes=4000, output_bytes=4000, span=1000)


def coefficients(**given: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([given.get(name.replace(" ", "_"), 0.0) for name in TERMS])


def model(shift_us: float = 0.0, trees: RegressionTrees | None = None) -> LatencyModel:
    fitted = VariantModel(coefficients(launch=1, elements=100), 0.5, shift_us, 7, trees)
    return LatencyModel({"activation:fp32:plain:relu": fitted}, 3.0, 0.05, 0.02)


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        (RELU, "activation:fp32:plain:relu"),
        (one("conv", "int8", "nhwc", in_channels=64, kernel_height=1, kernel_width=1), "conv:int8:nhwc:pointwise"),
        (one("conv", layout="blocked", in_channels=3, kernel_height=3), "conv:fp32:blocked:few channels"),
        (
            one("conv", layout="blocked", function="add+relu", in_channels=64, kernel_height=3, kernel_width=3),
            "conv:fp32:blocked:spatial",
        ),
        (one("add", elements=100, in_channels=100, span=100, batch=1), "add:fp32:plain:equal"),
        (one("mul", elements=100, in_channels=1, span=100, batch=1), "mul:fp32:plain:scalar"),
        (one("add", elements=100, in_channels=10, span=10, batch=10), "add:fp32:plain:vectors"),
        (one("mul", elements=100, in_channels=10, span=10, batch=10, output_bytes=1), "mul:fp32:plain:vectors"),
        (one("mul", elements=100, in_channels=4, span=25, batch=4), "mul:fp32:plain:scalars"),
        (one("quantize", "int8", elements=8, input_bytes=32, output_bytes=16), "quantize:int8:plain:2 bytes"),
        (one("transpose", span=1), "transpose:fp32:plain:elements"),
        (one("linear", "packed4"), "linear:packed4:plain"),
    ],
)
def test_a_variant_is_named_after_the_code_that_runs(workload: Workload, name: str) -> None:
    assert variants(workload) == (name,)


def test_a_roofline_is_the_sum_of_its_terms() -> None:
    latency, priced = model().predict(RELU)
    assert latency == pytest.approx([1 + 100 * 1000 / 1e5])
    assert priced.tolist() == [True]


def test_trees_multiply_and_shifts_add() -> None:
    trees = RegressionTrees(
        np.zeros((1, 1), np.uint8), np.full((1, 1), np.inf, np.float32), np.full((1, 2), math.log(3), np.float32)
    )
    latency, _ = model(shift_us=0.25, trees=trees).predict(RELU)
    assert latency == pytest.approx([2 * 3 + 0.25])


def test_no_kernel_falls_below_the_lowest_of_its_variant() -> None:
    assert model(shift_us=-10).predict(RELU)[0].tolist() == [0.5]


def test_what_was_not_measured_has_no_price_and_is_remembered() -> None:
    fitted = model()
    latency, priced = fitted.predict(one("softmax"))
    assert (latency.tolist(), priced.tolist()) == ([0.0], [False])
    assert fitted.unknown == ("softmax:fp32:plain",)


def test_a_model_comes_back_from_its_text() -> None:
    trees = RegressionTrees(np.zeros((2, 3), np.uint8), np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))
    written = model(0.125, trees)
    read = LatencyModel.from_json(json.loads(json.dumps(written.to_json())))
    assert read.predict(RELU)[0] == pytest.approx(written.predict(RELU)[0])
    assert (read.network_floor_us, read.kernel_error, read.common_error) == (3.0, 0.05, 0.02)
    assert read.variants["activation:fp32:plain:relu"].samples == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "kneepoint.latency/1"}, r"of the format kneepoint\.latency/2; got 'kneepoint\.latency/1'"),
        ({"arrays": "AAAA"}, "its arrays are damaged"),
    ],
)
def test_what_is_no_model_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyModel.from_json({**model().to_json(), **change})


sizes = st.integers(1, 10**6)


@given(sizes, sizes)
def test_a_roofline_never_falls_when_a_kernel_grows(small: int, more: int) -> None:
    before, after = (one("activation", function="relu", elements=count) for count in (small, small + more))
    assert model().predict(after)[0] >= model().predict(before)[0]


@given(st.lists(st.integers(0, 10**5), min_size=12, max_size=12), sizes)
def test_terms_and_features_of_any_kernel_are_finite_and_terms_not_negative(geometry: list[int], macs: int) -> None:
    sizes: dict[str, Any] = dict(zip(GEOMETRY, geometry, strict=True))
    kernel = one("conv", macs=macs, elements=5, **sizes)
    assert np.isfinite(terms(kernel)).all()
    assert (terms(kernel) >= 0).all()
    assert np.isfinite(features(kernel)).all()
