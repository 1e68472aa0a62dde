"""What a network computes, the kernels a runtime makes of it, and what they cost on a device. Never imports torch."""

from kneepoint.hardware_models.cost import Cost, KernelCost
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.device import Device, Power
from kneepoint.hardware_models.devices import list_devices, load_device
from kneepoint.hardware_models.fusion import FUSION_RULES, fuse
from kneepoint.hardware_models.kernels import KERNEL_KINDS, Kernel
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.hardware_models.operators import KINDS, Bias, Operator, OperatorTable, Tensor, Weight
from kneepoint.hardware_models.workload import Workload

__all__ = [
    "FUSION_RULES",
    "KERNEL_KINDS",
    "KINDS",
    "Bias",
    "Cost",
    "CostModel",
    "Device",
    "Kernel",
    "KernelCost",
    "Operator",
    "OperatorTable",
    "Power",
    "Tensor",
    "Weight",
    "Workload",
    "fuse",
    "list_devices",
    "load_device",
    "read_onnx",
]
