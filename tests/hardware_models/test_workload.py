"""A table as arrays, and what its activations occupy."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models import KERNEL_KINDS, Bias, Operator, OperatorTable, Tensor, Weight, Workload, fuse
from kneepoint.hardware_models.kernels import GEOMETRY


def chain(*kinds: str, elements: int = 100, formats: str = "fp32") -> OperatorTable:
    """Operators one behind the other, every tensor of the same size."""
    names = [f"t{i}" for i in range(len(kinds) + 1)]
    tensors = {name: Tensor(name, (1, elements), "uint8" if formats == "uint8" else "fp32") for name in names}
    operators = tuple(
        Operator(f"o{i}", kind, (names[i],), names[i + 1], function="gelu" if kind == "activation" else "")
        for i, kind in enumerate(kinds)
    )
    return OperatorTable(operators, tensors, (names[0],), (names[-1],))


def residual() -> OperatorTable:
    weight, bias = Weight((100, 100), 4, "int8", 100, scales=100, zero_points=100), Bias(100, scales=100)
    tensors = {name: Tensor(name, (1, 100)) for name in "xaby"}
    operators = (
        Operator("a", "linear", ("x",), "a", 10_000, weight, bias=bias),
        Operator("b", "linear", ("a",), "b", 10_000, weight, bias=bias),
        Operator("y", "add", ("b", "x"), "y"),
    )
    return OperatorTable(operators, tensors, ("x",), ("y",), parameters=10_300)


def test_a_row_for_every_kernel() -> None:
    table = residual()
    workload, kernels = Workload.of(table), fuse(table)
    assert len(workload) == len(kernels) == len(workload.names)
    assert workload.kinds == tuple(kernel.kind for kernel in kernels)
    assert [KERNEL_KINDS[code] for code in workload.kind] == list(workload.kinds)
    assert [str(c.dtype) for c in (workload.kind, workload.format, workload.macs)] == ["int16", "int8", "int64"]
    for column in ("macs", "input_bytes", "weight_bytes", "output_bytes", "elements"):
        assert getattr(workload, column).tolist() == [getattr(kernel, column) for kernel in kernels]


def test_storage_is_packed_and_memory_is_not() -> None:
    workload = Workload.of(residual())
    # 4-bit weights, 4 bytes of bias, two scales and a zero point a channel, twice; no parameter is left for the rest.
    assert workload.storage_bytes == 2 * (5_000 + 400 + 800 + 100)
    assert workload.resident_bytes == 2 * (10_000 + 400)


def test_parameters_of_no_layer_are_stored_as_floats() -> None:
    table = chain("layer_norm")
    table = OperatorTable(table.operators, table.tensors, table.inputs, table.outputs, parameters=200)
    assert Workload.of(table).storage_bytes == 800


def test_a_chain_holds_two_tensors_at_a_time() -> None:
    assert Workload.of(chain("activation", "softmax", "activation")).peak_activation_bytes == 800


def test_a_residual_keeps_its_source_alive() -> None:
    assert Workload.of(residual()).peak_activation_bytes == 3 * 400


def test_views_hold_no_memory() -> None:
    assert Workload.of(chain("view", "activation", "view")).peak_activation_bytes == 800


def test_a_quantized_chain_holds_bytes() -> None:
    workload = Workload.of(chain("max_pool", "max_pool", formats="uint8"))
    assert workload.kinds == ("quantize", "max_pool", "max_pool", "dequantize")
    assert workload.peak_activation_bytes == 500  # the float input or output, and its bytes


def test_a_view_is_a_kernel_that_moves_nothing() -> None:
    workload = Workload.of(chain("view"))
    assert (workload.kinds, workload.peak_activation_bytes) == (("view",), 400)
    assert workload.moved_bytes.tolist() == [0]
    assert dict(zip(GEOMETRY, workload.geometry[0], strict=True))["span"] == 100


def test_a_network_without_kernels_is_priced_too() -> None:
    workload = Workload.of(chain())
    assert (len(workload), workload.peak_activation_bytes) == (0, 0)
    assert workload.geometry.shape == (0, len(GEOMETRY))


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="fusion rules are"):
        Workload.of(chain("view"), ["nothing"])
