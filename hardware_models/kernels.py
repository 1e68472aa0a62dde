"""A kernel: what a runtime launches, and everything a device is priced on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kneepoint.hardware_models.operators import KINDS

KernelFormat = Literal[
    "fp32", "int8", "dynamic", "packed2", "packed4", "packed8", "dynamic2", "dynamic4", "dynamic8"
]  # fmt: skip
"""What a kernel computes with: floats; bytes; bytes that it makes of its float input itself; floats that it multiplies
by a weight of so many bits, which it unpacks as it goes (``packed4``), and bytes that it makes of them itself
(``dynamic4``)."""
FORMATS: tuple[KernelFormat, ...] = get_args(KernelFormat)

Layout = Literal["", "blocked", "nhwc"]
"""How the tensors of a kernel lie in memory: as ONNX says; channels in blocks of 16; channels last."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

KERNEL_KINDS = (*KINDS, "quantize", "dequantize", "reorder")
GEOMETRY = (
    "batch",
    "in_channels",
    "out_channels",
    "groups",
    "in_height",
    "in_width",
    "out_height",
    "out_width",
    "kernel_height",
    "kernel_width",
    "stride",
    "span",
)
"""The sizes in ``Kernel.geometry``, in order."""
NO_GEOMETRY = (0,) * len(GEOMETRY)


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
        layout: How its tensors lie in memory.
        geometry: Its sizes, as ``GEOMETRY`` names them; 0 where its kind has none. Convolutions, pools and resizes have
            them all but the span (whole channels, not those of a group; one-dimensional ones a height of 1). Products
            are (batch, in_height, in_channels) times (in_channels, out_channels). Kernels that work along an axis see
            (batch, in_channels, span): outer, along, inner. Elementwise ones have a span, the run of elements in which
            both operands advance alike, (or, with one operand, share a scale), the elements of the smaller operand as
            in_channels and the number of runs as batch. Transposes are (batch, in_channels, out_channels, span):
            outer, the two axes that change places, inner; with how many of the tensor's axes those are made of as
            kernel_height and kernel_width, how many change places as groups, and the innermost size behind it as
            out_height. A view has a span alone, its elements.
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
    layout: Layout = ""
    geometry: tuple[int, ...] = NO_GEOMETRY

    @property
    def row(self) -> tuple[str, KernelFormat, Layout, int, int, int, int, int, str, tuple[int, ...]]:
        """What a dense kernel is priced on: equal for equal structure, whatever its tensors are called.

        The pattern of zeros is left out, because shapes and types do not show it.
        """
        sizes = (self.macs, self.input_bytes, self.weight_bytes, self.output_bytes, self.elements)
        return (self.kind, self.format, self.layout, *sizes, self.function, self.geometry)
