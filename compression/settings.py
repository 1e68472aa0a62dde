"""How policies become networks: the choices a job makes once, for every candidate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kneepoint.compression.distillation import RECOVERY, STUDENT_TRAINING, Distillation
from kneepoint.compression.ranges import RangeMethod
from kneepoint.spaces.ranking import Importance

ScaleMethod = Literal["auto", "minmax", "percentile", "mse"]
CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class QuantizationSettings:
    """How floats become integers.

    Attributes:
        weight_scale: What a weight's scale covers: the largest weight (``minmax``), all but the largest few
            (``percentile``), or the range with the least squared error (``mse``); ``auto`` is ``minmax`` at 8 bits and
            ``mse`` below.
        activation_range: The same for calibrated activations.
        learned_bits: Weights of so many bits or fewer are rounded so that the layer's outputs on calibration data
            change least, instead of to the nearest integer; 0 for never.
        bias_correction: Whether a layer's bias makes up for the mean error that rounding its weights causes.
        equalization: Whether the channels of consecutive layers are scaled to equal ranges first.
    """

    weight_scale: ScaleMethod = "auto"
    activation_range: RangeMethod = "minmax"
    learned_bits: int = 4
    bias_correction: bool = True
    equalization: bool = False


@dataclass(frozen=True)
class CompressionSettings:
    """How policies become networks.

    Attributes:
        student: How a student is trained.
        recovery: How a compressed network recovers.
        calibration_samples: Training samples that set activation ranges and BatchNorm statistics.
        quantization: How floats become integers.
        importance: What decides which channels stay; one of :data:`kneepoint.spaces.ranking.IMPORTANCES`.
        pruning_steps: Stages in which a recovered network is pruned, with training between them; 1 prunes at once.
        float_share: The share of a pruned network's recovery that trains its floats, before BatchNorm is folded and
            numbers are rounded; at the students' learning rate, where that is higher. Without BatchNorm it is none.
        full: How the best of the recovered networks are trained to their end, from compression on; None for not at all.
    """

    student: Distillation = STUDENT_TRAINING
    recovery: Distillation = RECOVERY
    calibration_samples: int = CALIBRATION_SAMPLES
    quantization: QuantizationSettings = field(default_factory=QuantizationSettings)
    importance: Importance = "taylor"
    pruning_steps: int = 1
    float_share: float = 0.7
    full: Distillation | None = None
