"""Which published rows were measured on one system: a device with its runtime, threads and precision."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from kneepoint.hardware_models.device import OnChipWeights
from kneepoint.hardware_models.kernel_classes import KernelClass
from kneepoint.hardware_models.published.latencies import PublishedLatency

World = Literal["cpu", "accelerator", "microcontroller"]
Precision = Literal["fp32", "int8"]
"""What a system is given: floats, of whatever width, or bytes."""

_ACCELERATORS = ("trt", "eager", "xla", "npu", "neural-art", "edgetpu", "opencv gpu")
_MICROCONTROLLERS = ("mcu",)
_RUNTIMES = (
    (r"torch2trt|tensorrt", "trt"),
    (r"pytorch.*(cpu)", ""),
    (r"pytorch", "eager"),
    (r"tensorflow 1 xla", "xla"),
    (r"edge tpu", "edgetpu"),
    (r"\bnpu\b|\(dsp\)", "npu"),
    (r"opencv dnn.*cuda", "opencv gpu"),
    (r"gpu|vulkan|nnapi|core ?ml", ""),
    (r"tflite.*xnnpack|xnnpack", "xnnpack"),
    (r"tflite.*ruy|tflite cpu", "ruy"),
    (r"armnn", "armnn"),
    (r"ncnn cpu", "ncnn"),
    (r"opencv dnn.*cpu", "opencv"),
    (r"onnx runtime", "onnxruntime"),
    (r"stm32n6", "neural-art"),
    (r"cube|stedge|nucleo|plumerai|hale|cmsis|microtvm|onnc|micro|tinyengine|hardware-aware", "mcu"),
)
_WITHOUT_WINOGRAD = ("ruy", "xnnpack", "onnxruntime")
"""TensorFlow Lite and MLAS (of ONNX Runtime) multiply matrices for every convolution."""
_X86 = r"xeon|amd|intel|pavilion|t2\.medium|desktop cpu|colab"
_SCALAR_ON_X86: Mapping[str, tuple[KernelClass, ...]] = {"ruy int8": ("elementwise",)}
"""TensorFlow Lite adds bytes by NEON's instructions or one by one: AddElementwise in
tensorflow/lite/kernels/internal/optimized/optimized_ops.h."""
_FLOATS = ("fp32", "fp16", "tf32", "unspecified")
_EDGE_TPU = OnChipWeights(mb=7.5, stream_gb_s=0.4)
"""8 MB, some of it for code; 0.36 to 0.47 GB/s were fitted to ResNet-50 and VGG."""
_DELEGATED = "(xnnpack)"
_UNSIGNED = ("MobileNetV1", "MobileNetV2")
"""TensorFlow Lite gives XNNPACK signed bytes, and unsigned ones only on request (TFLITE_XNNPACK_DELEGATE_FLAG_QU8 of
tensorflow/lite/delegates/xnnpack/xnnpack_delegate.h), so that its own kernels, ruy's, execute the networks that were
published in unsigned bytes. On AGX Orin they take what they take without the delegate, within a few percent."""
_MACBOOK = "macbook_pro_m1-tflite"
"""One submission's integer rows are corrupt; the other laptop's are taken."""


@dataclass(frozen=True)
class System:
    """A device with its runtime, threads and precision.

    Attributes:
        device: An identifier of the hardware.
        runtime: As it was published, but for unsigned bytes, of which it was another one (``_UNSIGNED``).
        threads: None where that was not published.
        precision: Of what it is given.
        published_precision: As it was published: floats may be computed in half precision.
    """

    device: str
    runtime: str
    threads: int | None
    precision: Precision
    published_precision: str

    @classmethod
    def of(cls, row: PublishedLatency) -> System | None:
        """The system of a row; None where nothing can be fitted to it."""
        if row.precision in _FLOATS:
            precision: Precision = "fp32"
        elif row.precision == "int8":
            precision = "int8"
        else:
            return None
        found = cls(row.device, _executed_by(row), row.threads, precision, row.precision)
        return found if found.family and _MACBOOK not in row.runtime else None

    @cached_property
    def family(self) -> str:
        """Of runtimes that share their kernels, or empty where none is known."""
        text = f"{self.device} {self.runtime}".lower()
        return next((name for pattern, name in _RUNTIMES if re.search(pattern, text)), "")

    @property
    def world(self) -> World:
        """Systems of one world are fitted together."""
        if self.family in _ACCELERATORS:
            return "accelerator"
        return "microcontroller" if self.family in _MICROCONTROLLERS else "cpu"

    @property
    def group(self) -> str:
        """Systems whose kernels are alike: those of one family of runtimes in one precision."""
        half = "16" if self.published_precision in ("fp16", "tf32") else ""
        return f"{self.family} {self.precision}{half}"

    @property
    def fusion(self) -> tuple[str, ...]:
        """The rules that its kernels are made by."""
        if self.family == "eager":
            return ("direct",)
        if self.world == "accelerator":
            return ("direct", "activation", "epilogue")
        return ("direct", "activation")

    @property
    def on_chip_weights(self) -> OnChipWeights | None:
        """The memory that weights stay in between inferences; None where they come from main memory."""
        return _EDGE_TPU if self.family == "edgetpu" else None

    @property
    def scalar(self) -> tuple[KernelClass, ...]:
        """Classes whose kernels handle one element at a time, for they are written for other processors."""
        text = f"{self.device} {self.runtime}".lower()
        return _SCALAR_ON_X86.get(self.group, ()) if re.search(_X86, text) else ()

    @property
    def has_winograd(self) -> bool:
        """Whether 3x3 convolutions with stride 1 run on a fast algorithm; else they are like other convolutions."""
        return self.family not in _WITHOUT_WINOGRAD

    @property
    def keeps_norms(self) -> bool:
        """Whether batch normalization is a kernel of its own."""
        return self.family == "eager"


def _executed_by(row: PublishedLatency) -> str:
    unsigned = row.precision == "int8" and row.network.startswith(_UNSIGNED)
    return row.runtime.replace(_DELEGATED, "(ruy)") if unsigned else row.runtime


def by_system(rows: Iterable[PublishedLatency]) -> dict[System, list[PublishedLatency]]:
    """Rows by the system they were measured on; those of none are left out."""
    found: dict[System, list[PublishedLatency]] = {}
    for row in rows:
        if (system := System.of(row)) is not None:
            found.setdefault(system, []).append(row)
    return found
