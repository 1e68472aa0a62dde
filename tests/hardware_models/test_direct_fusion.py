"""Kernels of runtimes that compute every operator as its tensors are held."""

from __future__ import annotations

from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.workload import Workload
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.precision import quantized


def residual_network(*, norms: bool = False) -> OperatorTable:
    """Two convolutions, the second one's output added to the first one's, and a classifier."""
    b = NetworkBuilder(norms=norms)
    x = b.conv(b.input(3, 8, 8), 16, 3, activation="relu")
    y = b.conv(x, 16, 3, activation="")
    z = b.add(y, x, activation="relu")
    return b.table(b.linear(b.flatten(b.global_avg_pool(z)), 10))


def kinds(table: OperatorTable, *rules: str) -> list[str]:
    return [kernel.kind for kernel in fuse(table, ("direct", *rules))]


def test_a_runtime_that_clamps_adds_apart() -> None:
    assert kinds(residual_network(), "activation") == ["conv", "conv", "add", "global_avg_pool", "linear"]


def test_a_compiler_takes_sums_and_activations_into_convolutions() -> None:
    kernels = fuse(residual_network(), ("direct", "activation", "epilogue"))
    assert [kernel.kind for kernel in kernels] == ["conv", "conv", "global_avg_pool", "linear"]
    assert kernels[1].function == "add+relu"
    assert kernels[1].input_bytes == 2 * 4 * 16 * 8 * 8  # what it adds is read, too


def test_a_framework_runs_what_it_was_given() -> None:
    ran = kinds(residual_network(norms=True))
    assert ran == [
        "conv", "batch_norm", "activation", "conv", "batch_norm", "add", "activation", "global_avg_pool", "linear",
    ]  # fmt: skip


def test_integers_stay_integers_without_conversions() -> None:
    kernels = fuse(quantized(residual_network()), ("direct", "activation"))
    assert {kernel.format for kernel in kernels} == {"int8"}
    assert not {"quantize", "dequantize"} & {kernel.kind for kernel in kernels}
    assert kernels[1].weight_bytes == 16 * 16 * 9


def test_a_view_shares_the_memory_of_what_it_looks_at() -> None:
    workload = Workload.of(residual_network(), ("direct", "activation"))
    assert workload.macs.sum() == residual_network().macs
    assert workload.peak_activation_bytes == 3 * 4 * 16 * 8 * 8  # both summands and their sum
