"""Every network of the zoo by name; a module joins by listing its ``NETWORKS`` here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo import (
    convnexts,
    darknets,
    densenets,
    efficientnets,
    inception_v2_v3,
    inception_v4,
    inceptions,
    light_networks,
    mobilenets,
    nanodet,
    nasnets,
    resnets,
    retinanets,
    single_shot_detectors,
    speech,
    tiny_networks,
    transformers,
    vggs,
    vision_transformers,
    volumes,
    yolo,
    yolox,
)
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork
from kneepoint.hardware_models.zoo.precision import quantized
from kneepoint.tasks.errors import DeviceError

Precision = Literal["fp32", "int8"]

_SHOWN = 60
"""Characters of an unknown name that its refusal repeats."""

_MODULES = (
    mobilenets.NETWORKS,
    efficientnets.NETWORKS,
    resnets.NETWORKS,
    inceptions.NETWORKS,
    inception_v2_v3.NETWORKS,
    inception_v4.NETWORKS,
    densenets.NETWORKS,
    nasnets.NETWORKS,
    vggs.NETWORKS,
    light_networks.NETWORKS,
    tiny_networks.NETWORKS,
    transformers.NETWORKS,
    vision_transformers.NETWORKS,
    convnexts.NETWORKS,
    yolo.NETWORKS,
    yolox.NETWORKS,
    darknets.NETWORKS,
    nanodet.NETWORKS,
    single_shot_detectors.NETWORKS,
    retinanets.NETWORKS,
    volumes.NETWORKS,
    speech.NETWORKS,
)


def joined(networks: Iterable[ZooNetwork]) -> tuple[Mapping[str, ZooNetwork], Mapping[str, ZooNetwork]]:
    """Networks by name, and by the folded form of every name and alias.

    Raises:
        ValueError: If two networks share a name.
    """
    names: dict[str, ZooNetwork] = {}
    spellings: dict[str, ZooNetwork] = {}
    for network in networks:
        names[network.name] = network
        for spelling in (network.name, *network.aliases):
            if spellings.setdefault(folded(spelling), network) is not network:
                other = spellings[folded(spelling)].name
                raise ValueError(f"a name belongs to one network; {spelling!r} to {network.name!r} and {other!r}")
    return names, spellings


def folded(name: str) -> str:
    """What spellings of one name have in common: ``MobileNet-V1 0.50 224`` is ``mobilenetv10.5224``.

    >>> folded("ResNet-50 224") == folded("resnet50 224")
    True
    """
    numbers = re.sub(r"\d+\.\d+", lambda match: str(float(match[0])), name.lower())
    return re.sub(r"[^a-z0-9. ]", "", numbers).replace(" ", "")


NETWORKS, _SPELLINGS = joined(network for module in _MODULES for network in module)
"""Every network of the zoo, by name."""


def find(name: str) -> ZooNetwork:
    """The network of a name or an alias; capitals, hyphens and spaces make no difference.

    Raises:
        DeviceError: If there is none.
    """
    network = _SPELLINGS.get(folded(name))
    if network is None:
        raise DeviceError(f"a network is one of the zoo's {len(NETWORKS)}; got {name[:_SHOWN]!r}.{_hint(name)}")
    return network


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name[:_SHOWN], NETWORKS, n=3, cutoff=0.5)
    return f" Near names: {', '.join(near)}" if near else f" One of them: {next(iter(NETWORKS))}"


def build(name: str, batch: int = 1, *, norms: bool = False, precision: Precision = "fp32") -> OperatorTable:
    """The operator table of a network of the zoo; the same one for the same arguments.

    Args:
        name: Or an alias.
        batch: Samples of one inference.
        norms: Whether batch normalization stays an operator of its own.
        precision: ``int8``: all weights and activations in bytes.

    Raises:
        DeviceError: If there is no such network.
    """
    return _built(find(name).name, batch, norms, precision)


@lru_cache(maxsize=1024)
def _built(name: str, batch: int, norms: bool, precision: Precision) -> OperatorTable:
    table = NETWORKS[name].build(NetworkBuilder(batch, norms=norms))
    return quantized(table) if precision == "int8" else table
