"""A kernel: what a runtime launches, and everything a device is priced on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kneepoint.hardware_models.operators import KINDS

KernelFormat = Literal["fp32", "int8"]
KERNEL_KINDS = (*KINDS, "quantize", "dequantize")


@dataclass(frozen=True)
class Kernel:
    """One kernel that a runtime launches.

    Attributes:
        name: Of the operator it is headed by, or of the tensor it converts.
        kind: One of ``KERNEL_KINDS``.
        format: What it computes with.
        macs: Multiply-accumulate operations.
        input_bytes: Activations it reads, in the format it reads them in.
        weight_bytes: Constants it reads, as a session holds them.
        output_bytes: Activations it writes.
        elements: Of its output.
        operators: Names of the operators it stands for; empty for conversions.
        function: Its activation, alone or fused; ``add`` leads where a residual is fused; ``bias`` where the addition
            of one is a kernel of its own; the foreign name of an ``other``.
        reads: Buffers it reads, for liveness; views share a buffer.
        writes: The buffer it writes; one that it reads where it works in place.
        sparsity: Its weight's pattern of zeros.
    """

    name: str
    kind: str
    format: KernelFormat
    macs: int = 0
    input_bytes: int = 0
    weight_bytes: int = 0
    output_bytes: int = 0
    elements: int = 0
    operators: tuple[str, ...] = ()
    function: str = ""
    reads: tuple[str, ...] = ()
    writes: str = ""
    sparsity: str = "dense"

    @property
    def row(self) -> tuple[str, KernelFormat, int, int, int, int, int, str]:
        """What a dense kernel is priced on: equal for equal structure, whatever its tensors are called.

        The pattern of zeros is left out, because shapes and types do not show it.
        """
        sizes = (self.macs, self.input_bytes, self.weight_bytes, self.output_bytes, self.elements)
        return (self.kind, self.format, *sizes, self.function)
