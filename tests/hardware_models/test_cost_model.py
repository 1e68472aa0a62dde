"""The roofline: known answers, bounds and monotonicity."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneepoint.hardware_models import (
    KERNEL_KINDS,
    Bias,
    Cost,
    CostModel,
    Device,
    Operator,
    OperatorTable,
    Tensor,
    Weight,
    Workload,
    list_devices,
    load_device,
)
from kneepoint.hardware_models.device import Memory
from kneepoint.hardware_models.kernels import FORMATS
from kneepoint.hardware_models.liveness import Buffers
from kneepoint.hardware_models.price_table import rows_of
from kneepoint.tasks.errors import DeviceError

SIMPLE: dict[str, Any] = {
    "name": "simple",
    "description": "round numbers",
    "runtime": "none",
    "runtime_version": "0",
    "threads": 1,
    "formats": {"default": ["fp32", "int8"], "linear": ["fp32"]},
    "rates": {"conv": {"fp32": 1.0, "int8": 4.0}, "linear": {"fp32": 2.0, "int8": 1000.0}},
    "element_rates": {"add": {"fp32": 1.0}},
    "scalar_rate": 0.01,
    "bandwidth_gb_s": 1.0,
    "caches": [{"kb": 1.0, "bandwidth_gb_s": 10.0}],
    "floor_us": {"default": 1.0, "conv": 2.0},
    "network_floor_us": 5.0,
    "fusion": ["activation"],
    "memory": {"limit_mb": 1.0},
    "power": {"active_w": 2.0, "idle_w": 1.0},
    "relative_error": 0.5,
    "link_mb_s": 2.0,
    "fallbacks": {"int8": "fp32", "dynamic": "int8", "packed4": "fp32"},
}
SOURCED = (*SIMPLE, "sources")
DEVICE = Device.model_validate({**SIMPLE, "sources": dict.fromkeys(SOURCED, "made up for a test")})


def row(kind: str, format_: int = 0, **sizes: int) -> Workload:
    """A workload of one kernel."""
    columns = {name: np.array([sizes.get(name, 0)], np.int64) for name in COLUMNS}
    kinds, formats = np.array([KERNEL_KINDS.index(kind)], np.int16), np.array([format_], np.int8)
    return Workload(
        names=("k",),
        functions=("f",),
        kind=kinds,
        format=formats,
        layout=np.zeros(1, np.int8),
        geometry=np.zeros((1, 12), np.int64),
        surroundings=np.zeros((1, 8), np.int64),
        **columns,  # type: ignore[arg-type]  # a dict of arrays, which are the columns
        storage_bytes=10,
        resident_bytes=20,
        parameters=5,
        peak_activation_bytes=30,
        buffers=Buffers(np.array([30]), np.array([0]), np.array([0]), 1),
    )


COLUMNS = ("macs", "input_bytes", "weight_bytes", "output_bytes", "elements")


def milliseconds(workload: Workload, device: Device = DEVICE) -> float:
    """Of the only kernel."""
    return CostModel(device).cost(workload).kernels[0].latency_ms


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        (row("conv", macs=10**6, input_bytes=8), 1.0 + 0.002),  # 1 GMAC/s
        (row("conv", 1, macs=10**6, input_bytes=8), 0.25 + 0.002),  # 4 GMAC/s
        (row("conv", macs=8, input_bytes=10**6), 1.0 + 0.002),  # 1 GB/s from main memory
        (row("conv", macs=8, input_bytes=1000), 0.0001 + 0.002),  # 10 GB/s from cache
        (row("add", elements=10**5, output_bytes=8), 0.1 + 0.001),  # 1 Gelement/s
        (row("linear", 1, macs=10**6, input_bytes=8), 0.5 + 0.001),  # falls back to fp32, 2 GMAC/s
        (row("linear", 1, macs=8, weight_bytes=10**6), 4.0 + 0.001),  # and its bytes become floats
        (row("linear", 2, macs=10**6, weight_bytes=8), 0.5 + 0.001),  # dynamic, int8, fp32: the end of the fallbacks
        (row("conv", 2, macs=10**6, weight_bytes=8), 0.25 + 0.002),  # dynamic, by the rate of int8
        (row("conv", 4, macs=10**6, weight_bytes=8), 1.0 + 0.002),  # packed, by the rate of fp32
        (row("view", elements=10**6, input_bytes=4 * 10**6), 0.001),  # a launch alone
        (row("other", elements=1000, output_bytes=10**6), 1.0 + 0.1 + 0.001),  # bytes and scalar work, in turn
        (row("add", 1, elements=1000, output_bytes=10**6), 1.0 + 0.1 + 0.001),  # no int8 rate for add
    ],
)
def test_known_answers(workload: Workload, expected: float) -> None:
    assert milliseconds(workload) == pytest.approx(expected)


def test_a_network_is_the_sum_of_its_kernels_and_its_floor() -> None:
    cost = CostModel(DEVICE).cost(row("conv", macs=10**6))
    assert cost.latency_ms == pytest.approx(1.002 + 0.005)
    assert cost.latency_ms_error == pytest.approx(0.5 * cost.latency_ms)
    assert cost.energy_mj == pytest.approx(2 * cost.latency_ms)
    assert (cost.peak_memory_bytes, cost.storage_bytes, cost.coverage) == (50, 10, 1.0)


def test_json_has_the_documented_keys() -> None:
    facts = CostModel(DEVICE).cost(row("conv", macs=10**6)).to_json()
    assert list(facts) == [
        "device", "latency_ms", "latency_ms_error", "energy_mj", "energy_mj_error", "peak_memory_bytes",
        "reserved_memory_bytes", "storage_bytes", "transfer_ms", "coverage", "fits", "misfits", "unpriced", "kernels",
    ]  # fmt: skip
    assert facts["kernels"] == [
        {
            "name": "k",
            "kind": "conv",
            "latency_ms": 1.002,
            "latency_ms_error": 0.501,
            "energy_mj": 2.004,
            "memory_bytes": 30,
            "priced": True,
            "why": "fp32, bound by arithmetic",
        }
    ]
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_a_transfer_takes_bytes_over_the_link() -> None:
    assert CostModel(DEVICE).cost(row("conv")).transfer_ms == pytest.approx(10 / 2e3)  # 10 bytes at 2 MB/s
    assert CostModel(DEVICE.model_copy(update={"link_mb_s": None})).cost(row("conv")).transfer_ms is None


def test_an_unpriced_kernel_is_bounded_reported_and_counted_out() -> None:
    cost = CostModel(DEVICE).cost(row("other", elements=10, output_bytes=40))
    (kernel,) = cost.kernels
    assert kernel.latency_ms > 0.001
    assert not kernel.priced
    assert kernel.why.startswith("operator 'f' is not known to the table: bounded")
    assert cost.coverage == 0.0
    assert cost.latency_ms_error >= kernel.latency_ms  # all of it may be wrong
    assert CostModel(DEVICE).cost(row("softmax")).kernels[0].why.startswith("no fp32 rate for softmax")


def test_an_unpriced_kernel_is_refused_on_request() -> None:
    with pytest.raises(DeviceError, match=r"device 'simple' has no rate for k .f.; add rates.*unpriced='bound'"):
        CostModel(DEVICE, unpriced="refuse").cost(row("other"))
    assert CostModel(DEVICE, unpriced="refuse").cost(row("conv")).coverage == 1.0
    with pytest.raises(DeviceError, match="'bound' or 'refuse'; got 'drop'"):
        CostModel(DEVICE, unpriced="drop")  # type: ignore[arg-type]


def test_energy_is_unknown_where_power_is() -> None:
    assert CostModel(DEVICE.model_copy(update={"power": None})).cost(row("conv")).energy_mj is None


def test_many_workloads_cost_what_each_costs_alone() -> None:
    workloads = [
        row("conv", macs=10**6),
        row("other", elements=100),
        row("add", elements=10**5),
        row("conv", 1, macs=8),
    ]
    model = CostModel(DEVICE)
    assert [cost.to_json() for cost in model.cost(workloads)] == [model.cost(w).to_json() for w in workloads]
    assert model.cost([]) == []


def test_networks_without_kernels_cost_their_floor() -> None:
    empty = Workload.of(OperatorTable((), {}, (), ()))
    costs = CostModel(DEVICE).cost([row("conv"), empty, row("conv")])
    assert [cost.latency_ms for cost in costs] == pytest.approx([0.007, 0.005, 0.007])
    assert costs[1].coverage == 1.0


def test_units() -> None:
    """mJ are W times ms; a kernel's errors, energies and latencies are shares of the network's."""
    cost = CostModel(DEVICE).cost(row("conv", macs=10**6))
    (kernel,) = cost.kernels
    assert cost.energy_mj == pytest.approx(2.0 * cost.latency_ms)
    assert kernel.energy_mj == pytest.approx(2.0 * kernel.latency_ms)
    assert kernel.latency_ms + 5.0 / 1e3 == pytest.approx(cost.latency_ms)


def test_several_levels_of_cache() -> None:
    caches = [{"kb": 1, "bandwidth_gb_s": 10.0}, {"kb": 4, "bandwidth_gb_s": 4.0}]
    device = Device.model_validate({**DEVICE.model_dump(), "caches": caches})
    times = [milliseconds(row("conv", input_bytes=size), device) - 0.002 for size in (1024, 1025, 4096, 4097)]
    assert times == pytest.approx([1024 / 10e6, 1025 / 4e6, 4096 / 4e6, 4097 / 1e6])


def test_a_kernel_is_priced_once() -> None:
    model = CostModel(DEVICE)
    model.cost([row("conv", macs=5), row("conv", macs=5), row("conv", macs=6)])
    assert len(model.table) == 2
    model.cost(row("conv", macs=6))
    assert len(model.table) == 2


class Measured:
    """Knows convolutions: a microsecond for a thousand multiply-accumulates."""

    kernel_error, common_error, network_floor_us = 0.1, 0.05, 7.0

    def predict(self, workload: Workload) -> tuple[np.ndarray, np.ndarray]:
        return workload.macs / 1e3, workload.kind == KERNEL_KINDS.index("conv")


def calibrated(**fields: Any) -> Device:
    return Device.model_validate({**DEVICE.model_dump(), "calibration": {"threads": {"1": Measured()}}, **fields})


def test_measurements_go_before_rates() -> None:
    cost = CostModel(calibrated()).cost(row("conv", macs=10**6))
    (kernel,) = cost.kernels
    assert kernel.latency_ms == pytest.approx(1.0)
    assert kernel.latency_ms_error == pytest.approx(np.hypot(0.1, 0.05))
    assert kernel.why == "fp32, from measurements of this device"
    assert cost.latency_ms_error == pytest.approx(np.hypot(0.1, 0.05 * cost.latency_ms))


def test_what_was_not_measured_is_priced_by_rates_or_bounded() -> None:
    costs = CostModel(calibrated()).cost([row("linear", macs=10**6), row("other", elements=10)])
    assert [cost.kernels[0].priced for cost in costs] == [True, False]
    assert costs[0].kernels[0].latency_ms == pytest.approx(0.501)
    assert costs[0].kernels[0].latency_ms_error == pytest.approx(0.501 * np.hypot(0.5, 0.05))
    assert (costs[0].coverage, costs[1].coverage) == (1.0, 0.0)


def test_errors_of_many_kernels_cancel_in_part() -> None:
    """Own errors add as squares, the common one in full: hypot(common * total, sqrt(sum of squares))."""
    one = row("conv", macs=10**6)
    four = rows_of(one, [0, 0, 0, 0])
    cost = CostModel(calibrated()).cost(four)
    assert cost.latency_ms == pytest.approx(4.007)  # with the floor that was measured
    assert cost.latency_ms_error == pytest.approx(np.hypot(0.05 * 4.007, 0.1 * 2.0))


def test_threads_that_were_measured_need_no_scaling() -> None:
    both = {"threads": {"1": Measured(), "4": Measured()}}
    device = calibrated(
        calibration=both, thread_exponent=0.5, sources=dict.fromkeys([*SOURCED, "thread_exponent"], ".")
    )
    conv = row("conv", macs=10**6)
    measured, scaled = CostModel(device.at_threads(4)), CostModel(device.at_threads(3))
    assert measured.cost(conv).kernels[0].latency_ms == pytest.approx(1.0)
    assert measured.common_error == 0.05
    assert scaled.cost(conv).kernels[0].latency_ms == pytest.approx((4 / 3) ** 0.5)  # from 4, which is nearer than 1
    assert scaled.common_error == pytest.approx(np.hypot(0.05, 0.2))
    with pytest.raises(DeviceError, match=r"described for 1 thread.s. and does not say how it scales to 2"):
        calibrated().at_threads(2)


SIZES = st.integers(min_value=0, max_value=10**9)


@pytest.mark.parametrize("name", [*list_devices(), "simple"])
@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KERNEL_KINDS),
    format_=st.integers(0, len(FORMATS) - 1),
    sizes=st.fixed_dictionaries(dict.fromkeys(COLUMNS, SIZES)),
    more=st.fixed_dictionaries(dict.fromkeys(COLUMNS, SIZES)),
)
def test_more_work_never_costs_less(
    name: str, kind: str, format_: int, sizes: dict[str, int], more: dict[str, int]
) -> None:
    device = DEVICE if name == "simple" else load_device(name)
    larger = {key: sizes[key] + more[key] for key in sizes}
    assert 0 < milliseconds(row(kind, format_, **sizes), device) <= milliseconds(row(kind, format_, **larger), device)


def resnet18(quantized: bool) -> OperatorTable:
    """ResNet-18 at 224 by hand."""
    tensors: dict[str, Tensor] = {}
    operators: list[Operator] = []

    def tensor(shape: tuple[int, ...], inner: bool = False) -> str:
        name = f"t{len(tensors)}"
        tensors[name] = Tensor(name, shape, "uint8" if quantized and not inner else "fp32")
        return name

    def emit(kind: str, inputs: tuple[str, ...], shape: tuple[int, ...], inner: bool = False, **fields: Any) -> str:
        output = tensor(shape, inner)
        operators.append(Operator(f"o{len(operators)}", kind, inputs, output, **fields))
        return output

    def weight(*shape: int) -> Weight:
        scales = shape[0] if quantized else 0
        return Weight(shape, 8 if quantized else 32, "int8" if quantized else "fp32", shape[0], scales=scales)

    def conv(source: str, out: int, kernel: int, stride: int = 1, relu: bool = True) -> str:
        _, depth, size, _ = tensors[source].shape
        shape = (1, out, size // stride, size // stride)
        macs = shape[1] * shape[2] * shape[3] * depth * kernel * kernel
        layer = weight(out, depth, kernel, kernel)
        written = emit(
            "conv", (source,), shape, inner=relu, macs=macs, weight=layer, bias=Bias(out, scales=layer.scales)
        )
        return emit("activation", (written,), shape, function="relu") if relu else written

    source = first = tensor((1, 3, 224, 224))
    source = emit("max_pool", (conv(source, 64, 7, 2),), (1, 64, 56, 56))
    for width in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and width > 64 else 1
            body = conv(conv(source, width, 3, stride), width, 3, relu=False)
            shortcut = conv(source, width, 1, 2, relu=False) if stride == 2 else source
            shape = tensors[body].shape
            source = emit("activation", (emit("add", (body, shortcut), shape, inner=True),), shape, function="relu")
    pooled = emit("view", (emit("global_avg_pool", (source,), (1, 512, 1, 1)),), (1, 512), function="flatten")
    head = weight(1000, 512)
    output = emit("linear", (pooled,), (1, 1000), inner=True, macs=512_000, weight=head, bias=Bias(1000))
    return OperatorTable(tuple(operators), tensors, (first,), (output,))


def test_resnet18_on_the_shipped_devices() -> None:
    """Against the figures the x86 file is fitted to; the Raspberry Pi runs int8 1.7 to 2.6 times as fast as fp32."""
    tables = resnet18(quantized=False), resnet18(quantized=True)
    assert tables[0].macs == 1_814_073_344

    def costs(name: str) -> list[Cost]:
        device = load_device(name)
        return CostModel(device, unpriced="refuse").cost([Workload.of(table, device.fusion) for table in tables])

    x86 = [cost.latency_ms for cost in costs("x86-server")]
    assert x86 == pytest.approx([24.7, 7.8], rel=0.03)
    pi = [cost.latency_ms for cost in costs("raspberry-pi-4b")]
    assert 1.7 < pi[0] / pi[1] < 2.7
    assert tables[0].storage_bytes / tables[1].storage_bytes == pytest.approx(4, rel=0.02)


def test_constants_that_stay_in_flash_take_no_memory() -> None:
    apart = DEVICE.model_copy(update={"memory": Memory(limit_mb=1.0, flash_mb=2.0)})
    in_memory, in_flash = (CostModel(device).cost(row("conv")) for device in (DEVICE, apart))
    assert (in_memory.peak_memory_bytes, in_flash.peak_memory_bytes) == (50, 30)
