"""Temperature and alpha by kind of problem: what is used where a job says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kneepoint.compression.soft_targets import Head

Problem = Literal["classification", "dense", "tokens", "regression"]


@dataclass(frozen=True)
class Recommended:
    """What suits a kind of problem.

    Attributes:
        temperature: Of the logits; it means nothing for regression.
        alpha: Share of the teacher's signal in the loss.
    """

    temperature: float
    alpha: float


DEFAULTS: Mapping[Problem, Recommended] = {
    "classification": Recommended(2.0, 0.7),
    "dense": Recommended(2.0, 0.7),
    "tokens": Recommended(2.0, 0.7),
    "regression": Recommended(2.0, 0.7),
}
"""A label a sample (N,), a pixel (N, H, W), or a token (N, T), of language models, too; and anything else."""


def recommended(heads: Sequence[Head]) -> Recommended:
    """What suits the problem that these outputs are of: that of the first of them that tells classes apart."""
    return DEFAULTS[problem_of(heads)]


def problem_of(heads: Sequence[Head]) -> Problem:
    """Told by the shape of what is predicted."""
    for head in heads:
        if head.classes:
            kinds: dict[int, Problem] = {2: "classification", 3: "tokens"}
            return kinds.get(head.student.dim(), "dense")
    return "regression"
