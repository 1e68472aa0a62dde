"""Whether a network fits a device: its constants in flash where there is one, what is resident in RAM."""

from __future__ import annotations

from dataclasses import dataclass

from kneepoint.hardware_models.device import Device

_MB = 1e6


@dataclass(frozen=True)
class Misfit:
    """A limit of a device that a network exceeds.

    Attributes:
        device: Its name.
        what: ``flash`` or ``RAM``.
        needed_bytes: What the network takes of it.
        limit_bytes: What there is.
    """

    device: str
    what: str
    needed_bytes: int
    limit_bytes: float

    @property
    def excess(self) -> float:
        """What is missing, as a share of what there is; above 0."""
        return self.needed_bytes / self.limit_bytes - 1

    def __str__(self) -> str:
        whose = "constants take" if self.what == "flash" else "the peak takes"
        return (
            f"{whose} {self.needed_bytes / _MB:.4g} MB of the {self.limit_bytes / _MB:.4g} MB of {self.what} of "
            f"{self.device}"
        )


def misfits(device: Device, storage_bytes: int, peak_memory_bytes: int) -> tuple[Misfit, ...]:
    """The limits that a network exceeds; empty where it fits.

    Args:
        device: Its constants lie in flash where ``memory.flash_mb`` says how much there is; elsewhere they are loaded,
            and part of the peak.
        storage_bytes: ``Cost.storage_bytes``.
        peak_memory_bytes: ``Cost.peak_memory_bytes``.
    """
    memory = device.memory
    flash = memory.flash_mb * _MB if memory.flash_mb else None
    found = [] if flash is None or storage_bytes <= flash else [Misfit(device.name, "flash", storage_bytes, flash)]
    if peak_memory_bytes > memory.limit_mb * _MB:
        found.append(Misfit(device.name, "RAM", peak_memory_bytes, memory.limit_mb * _MB))
    return tuple(found)
