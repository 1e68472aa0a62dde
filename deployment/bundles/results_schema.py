"""The lines of a file of results: what each key may hold. Nothing is converted, and no key is unknown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from kneepoint.deployment.bundles.plan import MOST
from kneepoint.deployment.calibration.probing import PROBES

_MOST_NODES = 10_000
_MOST_THREADS = 1024
_LONGEST_INFERENCE_US = 3.6e9


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("text has printable characters alone")
    return text


Text = Annotated[str, StringConstraints(max_length=200), AfterValidator(_printable)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Microseconds = Annotated[float, Field(gt=0, le=_LONGEST_INFERENCE_US, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Node = tuple[Text, Text, Annotated[int, Field(ge=0, le=2**40)], Microseconds]
"""Name, operator, elements of the first output, microseconds."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlanFacts(_Strict):
    """The plan of the bundle, as the results name it."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    few: bool
    count: Annotated[int, Field(ge=1, le=MOST)]
    digest: Digest


class MachineFacts(_Strict):
    """The machine, as it found itself.

    Attributes:
        architecture: Of the processor, as Python names it.
        system: The operating system.
        processor: Its name.
        cores: That could be used.
        memory_mb: Physical memory, 10^6 bytes; None where the system did not say.
        bandwidth_gb_s: Of one thread copying within main memory.
        caches: KiB, and the rate of one thread copying within half of each.
        saturates: Whether sums of two products of bytes saturate; None where that is not known.
        governor: Of the clock.
    """

    architecture: Text
    system: Text
    processor: Text
    cores: Annotated[int, Field(ge=1, le=4096)]
    memory_mb: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None
    bandwidth_gb_s: Rate
    caches: Annotated[list[tuple[Annotated[int, Field(ge=1, le=2**30)], Rate]], Field(max_length=8)]
    saturates: bool | None
    governor: Text | None


class Header(_Strict):
    """The first line."""

    schema_: Annotated[Literal["kneepoint.results/1"], Field(alias="schema")]
    plan: PlanFacts
    kneepoint: Text
    onnxruntime: Annotated[str, StringConstraints(pattern=r"^\d{1,4}(\.\w{1,12}){1,4}(\+[\w.]{1,40})?$")]
    numpy: Text
    python: Text
    machine: MachineFacts


class ProbeLine(_Strict):
    """What the runtime executed of a probe."""

    kind: Literal["probe"]
    network: Annotated[int, Field(ge=0, lt=PROBES)]
    sha256: Digest
    nodes: Annotated[list[Node], Field(max_length=_MOST_NODES)]
    refused: Text | None = None


class NetworkLine(_Strict):
    """A network that was timed."""

    kind: Literal["network"]
    network: Annotated[int, Field(ge=0, lt=MOST)]
    sha256: Digest
    threads: Annotated[int, Field(ge=1, le=_MOST_THREADS)]
    us: Microseconds
    runs: Annotated[int, Field(ge=1, le=100_000)]
    spread: Share
    slowdown: Share
    tries: Annotated[int, Field(ge=1, le=100)]
    nodes: Annotated[list[Node], Field(max_length=_MOST_NODES)] | None
    seconds: Share


class RefusedLine(_Strict):
    """A network that the runtime did not run."""

    kind: Literal["refused"]
    network: Annotated[int, Field(ge=0, lt=MOST)]
    sha256: Digest
    threads: Annotated[int, Field(ge=1, le=_MOST_THREADS)]
    reason: Text
    seconds: Share


Line = Annotated[ProbeLine | NetworkLine | RefusedLine, Field(discriminator="kind")]
LINE: TypeAdapter[ProbeLine | NetworkLine | RefusedLine] = TypeAdapter(Line)
