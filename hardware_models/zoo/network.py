"""An entry of the zoo: a published network, how it is built, and what its authors say it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder

Build = Callable[[NetworkBuilder], OperatorTable]
"""Builds one network; the builder fixes the batch and whether norms are kept."""


@dataclass(frozen=True)
class ZooNetwork:
    """A published network.

    Attributes:
        name: As lists of published latencies write it, input size included.
        family: Coarse: networks of one family are made of the same blocks.
        build: Its operator table.
        source: The paper or the repository that defines it.
        aliases: Other names of the very same network.
        parameters: As published; norms count two each channel. 0 where nothing was published.
        macs: Multiply-accumulate operations of one sample, as published; 0 where nothing was.
        tolerance: Relative, of both figures: papers round them, and leave out what they find small.
        note: Where published latencies may be of something else than one inference of the table; empty if nowhere.
        comparable: Whether they are of one inference all the same.
    """

    name: str
    family: str
    build: Build
    source: str
    aliases: tuple[str, ...] = ()
    parameters: float = 0
    macs: float = 0
    tolerance: float = 0.02
    note: str = ""
    comparable: bool = True
