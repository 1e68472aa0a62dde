"""What calibration adds to a device file: latency models, one for every thread count that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from kneepoint.hardware_models import latency_model
from kneepoint.hardware_models.workload import Workload
from kneepoint.tasks.errors import DeviceError


@runtime_checkable
class LatencyModel(Protocol):
    """Prices kernels as they were measured; errors are standard errors, as fractions of a latency."""

    @property
    def kernel_error(self) -> float:
        """Of a single kernel, independent of all others."""
        ...

    @property
    def common_error(self) -> float:
        """What all kernels of a network share."""
        ...

    @property
    def network_floor_us(self) -> float:
        """Microseconds of one inference apart from its kernels."""
        ...

    def predict(self, workload: Workload) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Microseconds of every kernel, and whether the model knows its kind; both (kernels,)."""
        ...


class Calibration(BaseModel):
    """What was fitted to measurements of the device itself.

    Attributes:
        threads: For every thread count that was measured, the fitted model as it was written.
        held_out: Errors on what the fit has not seen.
        measured: The machine, as it was found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: Mapping[str, Any] = Field(min_length=1)
    held_out: Mapping[str, Any] = Field(default_factory=dict)
    measured: Mapping[str, Any] = Field(default_factory=dict)
    _loaded: dict[int, LatencyModel] = PrivateAttr(default_factory=dict)

    @field_validator("threads")
    @classmethod
    def _check_threads(cls, models: Mapping[str, Any]) -> Mapping[str, Any]:
        for count in models:
            if not count.isdecimal() or count != str(int(count)) or count == "0":
                raise ValueError(f"a thread count is a positive number, in quotes; got {count!r}")
        return models

    @property
    def counts(self) -> tuple[int, ...]:
        """The thread counts that were measured, in rising order."""
        return tuple(sorted(map(int, self.threads)))

    def nearest_count(self, threads: int) -> int:
        """The measured count that is nearest in ratio; the larger of two."""
        return min(reversed(self.counts), key=lambda count: max(count, threads) / min(count, threads))

    def model(self, count: int) -> LatencyModel:
        """The model of a measured thread count; loaded once.

        Raises:
            DeviceError: If what the file holds is no such model.
        """
        if count not in self._loaded:
            self._loaded[count] = _load(self.threads[str(count)])
        return self._loaded[count]


def _load(content: Any) -> LatencyModel:
    if isinstance(content, LatencyModel):
        return content
    try:
        return latency_model.LatencyModel.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(
            f"calibration.threads holds models that this version wrote; {error}: calibrate again"
        ) from error
