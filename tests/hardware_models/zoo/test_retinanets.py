"""RetinaNet, whose published figures are those of another backbone and of other classes."""

from __future__ import annotations

from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.registry import build
from kneepoint.hardware_models.zoo.retinanets import retinanet


def test_on_a_residual_network_it_is_the_one_of_torchvision() -> None:
    table = retinanet(NetworkBuilder(norms=True), classes=91, groups=1, group_width=64)
    frozen = 53_120  # norms of the backbone, which are no parameters there
    assert table.parameters - frozen == 34_014_999


def test_five_resolutions_share_their_heads() -> None:
    table = build("RetinaNet ResNeXt50 800")
    shapes = [table.tensors[output].shape[1:] for output in table.outputs]
    sizes = (100, 50, 25, 13, 7)
    assert shapes == [(of, size, size) for of in (9 * 264, 9 * 4) for size in sizes]
    assert table.layer_parameters == table.parameters
