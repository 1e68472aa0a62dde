"""Zeros in weights: skipped where a device file says so, and like any other number elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kneepoint.hardware_models import CostModel, Device, Operator, OperatorTable, Tensor, Weight, Workload, load_device
from kneepoint.hardware_models.devices import SHIPPED
from kneepoint.hardware_models.operators import SPARSE_PATTERNS
from kneepoint.spaces.policy import SPARSITIES
from kneepoint.tasks.errors import DeviceError

DENSE = load_device("x86-server")


def device(**sparsity: dict[str, float]) -> Device:
    content: dict[str, Any] = yaml.safe_load((SHIPPED / "x86-server.yaml").read_text())
    sources = {**content["sources"], "sparsity": "made up for a test"}
    return Device.model_validate({**content, "sparsity": sparsity, "sources": sources})


def workload(sparsity: str, size: int = 512, rows: int = 64) -> Workload:
    """Two linear layers, the second one sparse."""
    weight = Weight((size, size), channels=size)
    tensors = {name: Tensor(name, (rows, size)) for name in ("x", "y", "z")}
    operators = (
        Operator("a", "linear", ("x",), "y", rows * size * size, weight),
        Operator("b", "linear", ("y",), "z", rows * size * size, replace(weight, sparsity=sparsity)),
    )
    return Workload.of(OperatorTable(operators, tensors, ("x",), ("z",), 2 * size * size))


def test_the_patterns_are_those_of_policies() -> None:
    assert ("dense", *SPARSE_PATTERNS) == SPARSITIES


@pytest.mark.parametrize("pattern", SPARSE_PATTERNS)
def test_undeclared_zeros_gain_nothing(pattern: str) -> None:
    dense, sparse = (CostModel(DENSE).cost(workload(name)) for name in ("dense", pattern))
    assert sparse.latency_ms == dense.latency_ms
    assert sparse.storage_bytes == dense.storage_bytes
    assert sparse.kernels[1].why == f"{dense.kernels[1].why}, {pattern} zeros computed like others"
    assert CostModel(device(**{"2:4": {"speedup": 2.0}})).cost(workload("50%")).latency_ms == dense.latency_ms


def test_declared_zeros_divide_the_arithmetic_of_their_kernel_alone() -> None:
    priced = CostModel(device(**{"2:4": {"speedup": 2.0}}))
    dense, sparse = priced.cost([workload("dense"), workload("2:4")])
    floor = DENSE.floor_us.get("linear", DENSE.floor_us["default"]) / 1e3
    assert sparse.kernels[0] == dense.kernels[0]
    assert sparse.kernels[1].latency_ms - floor == pytest.approx((dense.kernels[1].latency_ms - floor) / 2)
    assert sparse.kernels[1].why.endswith("bound by arithmetic, 2:4 zeros skipped")
    assert sparse.storage_bytes == dense.storage_bytes


def test_a_kernel_bound_by_bandwidth_gains_what_it_need_not_read() -> None:
    big = {"size": 4096, "rows": 1}
    less = device(**{"90%": {"speedup": 100.0, "weight_bytes": 0.25}})
    dense, sparse = (CostModel(less).cost(workload(name, **big)).kernels[1].latency_ms for name in ("dense", "90%"))
    same = CostModel(device(**{"90%": {"speedup": 100.0}})).cost(workload("90%", **big)).kernels[1].latency_ms
    assert sparse < 0.3 * same <= 0.3 * dense


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": {"2:5": {"speedup": 2.0}}}, "unknown pattern of zeros '2:5'; did you mean '2:4'"),
        ({"sparsity": {"dense": {"speedup": 2.0}}}, "unknown pattern of zeros 'dense'"),
        ({"sparsity": {"2:4": {"speedup": 0.5}}}, "speedup: Input should be greater than or equal to 1"),
        ({"sparsity": {"2:4": {"speedup": 2.0, "weight_bytes": 1.5}}}, "weight_bytes: Input should be less than"),
        ({"sparsity": {"2:4": {"speedup": 2.0}}}, "sources says where every number comes from; missing: sparsity"),
    ],
)
def test_bad_declarations_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = yaml.safe_load((SHIPPED / "x86-server.yaml").read_text())
    path = tmp_path / "sparse.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    with pytest.raises(DeviceError, match=message):
        load_device(path)
