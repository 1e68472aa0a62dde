"""Classes of kernels that run at rates of their own, and their work."""

from __future__ import annotations

import numpy as np
import pytest

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES, WORK, class_codes, work
from kneepoint.hardware_models.operators import FP32_BYTES
from kneepoint.hardware_models.workload import KIND_CODES, Workload
from kneepoint.hardware_models.zoo.registry import Precision, build


def _rows(network: str, precision: Precision = "fp32") -> Workload:
    return Workload.of(build(network, precision=precision), ("direct", "activation"))


def _counts(network: str) -> dict[str, int]:
    codes = class_codes(_rows(network))
    return {name: int((codes == code).sum()) for code, name in enumerate(KERNEL_CLASSES) if (codes == code).any()}


def test_every_kernel_of_a_mobilenet_has_its_class() -> None:
    counts = _counts("MobileNetV1 1.0 224")
    assert (counts["stem"], counts["depthwise"], counts["pointwise"], counts["vector"]) == (1, 13, 13, 1)
    assert "winograd" not in counts
    assert "convolution" not in counts


def test_dense_windows_are_winograd_where_their_stride_is_one() -> None:
    counts = _counts("ResNet-50 v1.5 224")
    assert (counts["stem"], counts["winograd"], counts["convolution"], counts["vector"]) == (1, 13, 3, 1)
    assert _counts("ResNet-50 224")["winograd"] == 16  # its strides are those of pointwise kernels
    assert _counts("VGG-16 224")["winograd"] == 12


def test_transformers_have_matmuls_and_norms() -> None:
    counts = _counts("ViT-B/16 224")
    assert counts["matmul"] == 24
    assert counts["norm"] >= 12 + 25


@pytest.mark.parametrize("network", ["ShuffleNetV2 224", "SqueezeNet v1.1 224", "EfficientNet-B0 224"])
def test_only_views_and_unknown_kinds_have_no_class(network: str) -> None:
    rows = _rows(network)
    unknown = class_codes(rows) < 0
    assert set(rows.kind[unknown]) <= {KIND_CODES["view"], KIND_CODES["other"]}


def test_work_is_macs_and_elements() -> None:
    rows = _rows("MobileNetV1 1.0 224")
    codes = class_codes(rows)
    parts = work(rows, codes)
    products = np.isin(codes, [KERNEL_CLASSES.index(name) for name in ("stem", "depthwise", "pointwise", "vector")])
    assert parts.shape == (len(rows), len(WORK))
    assert (parts[products, 0] == rows.macs[products]).all()
    assert (parts[products, 1] == rows.input_bytes[products] / FP32_BYTES).all()
    first = parts[codes == KERNEL_CLASSES.index("stem")][0]
    assert list(first) == [10_838_016, 150_528, 401_408, pytest.approx(864, abs=32)]


def test_elements_do_not_depend_on_the_format() -> None:
    floats, integers = (_rows("MobileNetV1 1.0 224", precision) for precision in ("fp32", "int8"))
    kind = KERNEL_CLASSES.index("pointwise")
    amounts = [work(rows, codes)[codes == kind, :3] for rows in (floats, integers) for codes in [class_codes(rows)]]
    assert amounts[0] == pytest.approx(amounts[1])


def test_kernels_that_move_elements_have_no_other_parts() -> None:
    rows = _rows("ResNet-50 224")
    codes = class_codes(rows)
    moved = np.isin(codes, [KERNEL_CLASSES.index(name) for name in ("elementwise", "norm", "pool")])
    parts = work(rows, codes)
    assert moved.any()
    assert (parts[moved, 0] > 0).all()
    assert (parts[moved, 1:] == 0).all()
