"""The problem: a trained network, its data and what it is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kneepoint.tasks.batches import as_pair, concatenate, leaves, transform
from kneepoint.tasks.checks import check_task
from kneepoint.tasks.class_metrics import accuracy
from kneepoint.tasks.constant_predictor import constant_outputs
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.fingerprints import fingerprint
from kneepoint.tasks.losses import classification_loss
from kneepoint.tasks.metric import Metric, MetricFunction, Score
from kneepoint.tasks.metric_making import as_metric
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import ORDER_SEED, seeded

Split = Literal["train", "validation", "test"]
Loss = Callable[[Any, Any], Tensor]
"""``loss(outputs, targets) -> scalar tensor``, lower is better."""


@dataclass(init=False, eq=False)
class Task:
    """A trained network with its data, metric and loss; picklable when they are.

    Attributes:
        model: The trained network (the teacher), used as it is and never changed.
        example_input: One valid input: a tensor, a tuple (positional arguments) or a dict (keyword arguments).
        train: A re-iterable of (inputs, targets) batches; used to calibrate, recover and distil.
        validation: The same; every score of a search comes from here.
        test: The same, or None; never seen by a search.
        metric: What a network is judged by; given as a metric or as a bare ``f(outputs, targets) -> float``.
        loss: ``f(outputs, targets) -> scalar tensor`` to train with.
        name: By default the name of the model's class.
    """

    model: nn.Module
    example_input: Any
    train: Iterable[Any]
    validation: Iterable[Any]
    test: Iterable[Any] | None
    metric: Metric
    loss: Loss
    name: str

    def __init__(
        self,
        model: nn.Module,
        example_input: Any,
        train: Iterable[Any],
        validation: Iterable[Any],
        test: Iterable[Any] | None = None,
        metric: Metric | MetricFunction = accuracy,
        loss: Loss = classification_loss,
        name: str | None = None,
    ) -> None:
        self.model = model
        self.example_input = example_input
        self.train = train
        self.validation = validation
        self.test = test
        self.metric = as_metric(metric)
        self.loss = loss
        self.name = name or type(model).__name__
        self._teacher_score: Score | None = None

    def call(self, module: nn.Module, inputs: Any) -> Any:
        """``module`` on ``inputs``: a tuple or list as positional arguments, a dict as keyword arguments."""
        if isinstance(inputs, Tensor):
            return module(inputs)
        if isinstance(inputs, Mapping):
            return module(**inputs)
        return module(*inputs)

    def loader(self, split: Split) -> Iterable[Any]:
        """The batches of a split.

        Raises:
            TaskError: There is no such split, or the task came without test data.
        """
        if split not in ("train", "validation", "test"):
            raise TaskError(f"a split must be 'train', 'validation' or 'test', got {split!r}")
        loader: Iterable[Any] | None = getattr(self, split)
        if loader is None:
            raise TaskError(f"task '{self.name}' has no {split} data: give Task(..., {split}=...)")
        return loader

    def predict(
        self,
        module: nn.Module,
        loader: Iterable[Any] | None = None,
        split: Split = "validation",
        enough: Callable[[Any, Any], bool] | None = None,
    ) -> tuple[Any, Any]:
        """All outputs of ``module`` and all targets, on the CPU, in an order that is the same at every call.

        Args:
            module: The network to run, in eval mode; its mode is restored afterwards.
            loader: Batches to run on instead of those of a split.
            split: The split to run on where no ``loader`` is given.
            enough: Told the outputs and targets of each batch; where it says so, that batch is the last.

        Returns:
            Outputs and targets, each a tensor, tuple or dict of tensors with the samples along dimension 0.

        Raises:
            TaskError: There are no batches, they are no pairs, or they cannot be joined.
        """
        batches = self.loader(split) if loader is None else loader
        outputs, targets = [], []
        with seeded(ORDER_SEED), module_mode(module, training=False):
            for batch in batches:
                inputs, target = as_pair(batch, split)
                with torch.inference_mode():  # not around the loader: what it keeps would become unfit for training
                    outputs.append(transform(Tensor.cpu, self.call(module, inputs)))
                targets.append(transform(Tensor.cpu, target))
                if enough is not None and enough(outputs[-1], targets[-1]):
                    break
        if not outputs:
            raise TaskError(f"{split}: the loader gave no batches: it must be re-iterable and not empty")
        return concatenate(outputs), concatenate(targets)

    def teacher_score(self) -> Score:
        """The metric of the model itself on the validation data; computed once."""
        if self._teacher_score is None:
            self._teacher_score = self.metric.score(*self.predict(self.model))
        return self._teacher_score

    def reference_score(self) -> float:
        """The metric of the best constant predictor that can be made, on the validation data: the worst useful score.

        For class indices and logits it predicts the frequency of the classes, so its top-1 prediction is the majority
        class; otherwise it predicts the mean of the model's outputs. Where the metric has no value for a constant (a
        correlation has none), the model's outputs in a random order stand in for it.
        """
        outputs, targets = self.predict(self.model)
        value = self.metric(constant_outputs(outputs, targets), targets)
        if math.isfinite(value):
            return value
        generator = torch.Generator().manual_seed(ORDER_SEED)
        order = torch.randperm(len(leaves(outputs)[0]), generator=generator)
        return self.metric(transform(lambda leaf: leaf[order], outputs), targets)

    def fingerprint(self) -> str:
        """SHA-256 over the model's state, the validation samples and the metric's name, as 64 hex digits.

        The order of the samples and their division into batches do not count.
        """
        return fingerprint(self.model, self.validation, self.metric.name)

    def check(self) -> None:
        """Runs everything once and refuses what cannot be searched.

        Raises:
            TaskError: One line that names the split and what is wrong with the model, its data, metric or loss.
        """
        self._teacher_score = check_task(self)
