"""Published peak rates of accelerators: what a handful of networks cannot say about their speed.

A small network on a large accelerator waits for launches, so that its latency says next to nothing of how fast a large
one will be. The data sheet does: large networks reach a share of the peak that runtimes have in common.
"""

from __future__ import annotations

from collections.abc import Mapping

from kneepoint.hardware_models.published.systems import System

_TERA_OPERATIONS: Mapping[tuple[str, str], float] = {
    ("a100", "int8"): 624,  # NVIDIA A100 data sheet
    ("a100", "fp16"): 312,
    ("a100", "tf32"): 156,
    ("h100_pcie", "int8"): 1513,  # NVIDIA H100 data sheet, half of the sparse figure
    ("t4", "int8"): 130,  # NVIDIA T4 data sheet
    ("t4", "fp16"): 65,
    ("t4", "fp32"): 8.1,
    ("l4", "int8"): 242,  # NVIDIA L4 data sheet, half of the sparse figure
    ("v100", "fp16"): 125,  # NVIDIA V100 data sheet
    ("v100", "fp32"): 15.7,
    ("jetson_nano", "fp32"): 0.236,  # 128 cores, 921 MHz
    ("jetson_nano", "fp16"): 0.472,
    ("jetson_orin_nano", "fp32"): 1.28,  # 1024 cores, 625 MHz
    ("jetson_orin_nano", "fp16"): 10,  # half of the dense integer figure
    ("jetson_agx_orin", "int8"): 85,  # of the GPU alone, half of the sparse figure
    ("jetson_orin_nx", "int8"): 30,  # half the cores of AGX Orin, at 918 MHz instead of 1.3 GHz
    ("jetson_agx_xavier", "int8"): 22,  # of the GPU alone
    ("jetson_xavier_nx", "int8"): 13.5,  # 48 tensor cores instead of 64, at 1.1 GHz instead of 1.377
    ("edgetpu_usb", "int8"): 4,  # Coral data sheet
    ("edgetpu_devboard", "int8"): 4,
    ("ascend310", "fp16"): 8,  # https://www.hisilicon.com
}
"""Dense, of a device in a precision as it was published; a multiply-accumulate is two operations."""


def peak_macs_per_ms(system: System) -> float | None:
    """Multiply-accumulates a millisecond at most; None where no figure was published or the system is a processor."""
    if system.world != "accelerator":
        return None
    peak = _TERA_OPERATIONS.get((system.device, system.published_precision))
    return None if peak is None else peak * 1e12 / 2 / 1e3
