"""Every network of the zoo against what its authors publish."""

from __future__ import annotations

import pytest

from kneepoint.hardware_models import OperatorTable, Workload
from kneepoint.hardware_models.zoo.network import ZooNetwork
from kneepoint.hardware_models.zoo.registry import NETWORKS, build

EVERY = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
CLASSIFIERS = (
    "MobileNetV1", "MobileNetV2", "MobileNetV3", "EfficientNet", "EfficientNet-Lite", "ResNet", "Inception", "VGG",
    "DenseNet", "SqueezeNet", "ShuffleNet", "NASNet", "ProxylessNAS", "AlexNet",
)  # fmt: skip


@EVERY
def test_parameters_and_work_are_those_published(network: ZooNetwork) -> None:
    table = build(network.name, norms=True)
    if network.parameters:
        assert table.parameters == pytest.approx(network.parameters, rel=network.tolerance)
    if network.macs:
        assert table.macs == pytest.approx(network.macs, rel=network.tolerance)


@EVERY
def test_a_table_is_in_order(network: ZooNetwork) -> None:
    table = build(network.name)
    written = set(table.inputs)
    for operator in table.operators:
        assert written.issuperset(operator.inputs)
        assert operator.output not in written
        written.add(operator.output)
    assert written == set(table.tensors)
    assert table.outputs
    assert written.issuperset(table.outputs)
    assert min(min(tensor.shape) for tensor in table.tensors.values()) > 0


@EVERY
def test_every_operator_can_be_priced(network: ZooNetwork) -> None:
    workload = Workload.of(build(network.name))
    assert workload.macs.sum() == build(network.name).macs
    assert "other" not in workload.kinds


@pytest.mark.parametrize("name", [name for name, entry in NETWORKS.items() if entry.family in CLASSIFIERS])
def test_a_classifier_ends_with_its_classes(name: str) -> None:
    table = build(name, 2)
    batch, classes = table.tensors[table.outputs[0]].shape
    assert batch == 2
    assert classes in {1000, 1001, 5, 2, 128, 768}


def keras_parameters(table: OperatorTable) -> int:
    """With the two statistics of each normed channel, which are no weights."""
    norms = [operator.output for operator in table.operators if operator.kind == "batch_norm"]
    return table.parameters + 2 * sum(table.tensors[name].shape[1] for name in norms)


@pytest.mark.parametrize(("depth", "parameters"), [(50, 25_613_800), (101, 44_675_560), (152, 60_380_648)])
def test_residual_networks_of_the_second_kind(depth: int, parameters: int) -> None:
    assert keras_parameters(build(f"ResNet-{depth} V2 299", norms=True)) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("MLPerf-Tiny IC", 78_666),
        ("MLPerf-Tiny VWW", 221_794),
        ("MLPerf-Tiny KWS", 24_908),
        ("MLPerf-Tiny AD", 269_992),
    ],
)
def test_networks_of_mlperf_tiny(name: str, parameters: int) -> None:
    table = build(name, norms=True)
    biased = {operator.output for operator in table.operators if operator.bias is not None}
    normed = [operator for operator in table.operators if operator.kind == "batch_norm"]
    missing = sum(table.tensors[norm.output].shape[1] for norm in normed if not biased.issuperset(norm.inputs))
    assert keras_parameters(table) + missing == parameters  # convolutions have biases in front of norms, too
