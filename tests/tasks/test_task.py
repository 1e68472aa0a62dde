from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.fingerprints import fingerprint
from kneepoint.tasks.metrics import Metric, classification_loss, cross_entropy, mean_squared_error
from kneepoint.tasks.task import Task

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(50, 4, generator=GENERATOR)
CLASSES = (INPUTS[:, 0] > 0.3).long()
BATCHES = [(INPUTS[i : i + 16], CLASSES[i : i + 16]) for i in range(0, 50, 16)]


class Pair(nn.Module):
    """Takes two inputs and gives whatever ``head`` makes of their joint features."""

    def __init__(self, head: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.head = head

    def forward(self, left: Tensor, right: Tensor) -> Any:
        return self.head(self.linear(left) + right.sum())


def classifier() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))


def make(**changes: Any) -> Task:
    given: dict[str, Any] = {
        "model": classifier(),
        "example_input": INPUTS[:1],
        "train": BATCHES,
        "validation": BATCHES,
    }
    return Task(**(given | changes))


def shuffled() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(INPUTS, CLASSES), batch_size=7, shuffle=True)


class TestConstruction:
    def test_the_defaults_are_accuracy_cross_entropy_and_the_class_name(self) -> None:
        task = make()
        assert (task.metric.name, task.loss) == ("accuracy", classification_loss)
        assert (task.name, task.test) == ("Sequential", None)

    def test_a_classifier_may_return_its_logits_beside_other_tensors(self) -> None:
        batches = [((x, x), y) for x, y in BATCHES]
        model, plain = Pair(lambda y: {"states": (y, None), "logits": y}), Pair(lambda y: y)
        plain.linear = model.linear
        given: dict[str, Any] = {"example_input": (INPUTS[:1], INPUTS[:1]), "train": batches, "validation": batches}
        task, usual = make(model=model, **given), make(model=plain, **given)
        task.check()
        assert task.teacher_score() == usual.teacher_score()
        assert task.reference_score() == usual.reference_score()
        outputs, targets = task.predict(model)
        assert task.loss(outputs, targets) == usual.loss(outputs["logits"], targets)

    def test_a_bare_function_becomes_a_metric(self) -> None:
        def share(outputs: Tensor, targets: Tensor) -> float:
            return 0.25

        task = make(metric=share)
        assert isinstance(task.metric, Metric)
        assert task.teacher_score().value == 0.25

    def test_a_copy_with_another_model_shares_no_cached_score(self) -> None:
        task = make()
        task.teacher_score()
        other = replace(task, model=nn.Linear(4, 2))
        assert other.teacher_score().value == other.metric(*other.predict(other.model))

    def test_it_pickles(self) -> None:
        task = make()
        copy = pickle.loads(pickle.dumps(task))  # noqa: S301
        assert copy.fingerprint() == task.fingerprint()
        assert copy.teacher_score() == task.teacher_score()


class TestPredict:
    def test_outputs_and_targets_come_whole_and_fit_for_training(self) -> None:
        task = make()
        outputs, targets = task.predict(task.model)
        assert torch.equal(targets, CLASSES)
        assert torch.allclose(outputs, task.model.eval()(INPUTS), atol=1e-6)
        assert not outputs.is_inference()

    def test_every_submodule_keeps_its_mode(self) -> None:
        model = classifier().train()
        model[1].eval()
        task = make(model=model)
        task.predict(model)
        assert [part.training for part in model] == [True, False, True, True, True]

    def test_a_shuffling_loader_gives_one_order(self) -> None:
        task = make(validation=shuffled())
        torch.rand(5)
        first = task.predict(task.model)
        torch.rand(5)
        second = task.predict(task.model)
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])

    def test_what_a_loader_keeps_stays_fit_for_training(self) -> None:
        class Lazy:
            inputs: Tensor | None = None

            def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
                self.inputs = INPUTS * 2
                yield self.inputs, CLASSES

        loader = Lazy()
        task = make(validation=loader)
        task.predict(task.model)
        assert loader.inputs is not None
        assert not loader.inputs.is_inference()

    @pytest.mark.parametrize(
        "inputs", [(INPUTS[:8], INPUTS[8:16]), [INPUTS[:8], INPUTS[8:16]], {"right": INPUTS[8:16], "left": INPUTS[:8]}]
    )
    def test_tuples_are_positional_and_dicts_keyword_arguments(self, inputs: Any) -> None:
        model = Pair(lambda features: {"logits": features, "pair": features.sum(1)})
        task = make(model=model, example_input=inputs, validation=[(inputs, CLASSES[:8])] * 2)
        outputs, targets = task.predict(model)
        assert {name: tuple(value.shape) for name, value in outputs.items()} == {"logits": (16, 2), "pair": (16,)}
        assert len(targets) == 16

    def test_outputs_may_be_a_tuple_and_targets_a_dict(self) -> None:
        model = Pair(lambda features: (features, features.mean(1)))
        inputs = (INPUTS[:8], INPUTS[8:16])
        task = make(model=model, example_input=inputs, validation=[(inputs, {"class": CLASSES[:8]})] * 2)
        outputs, targets = task.predict(model)
        assert [tuple(leaf.shape) for leaf in outputs] == [(16, 2), (16,)]
        assert targets["class"].shape == (16,)

    def test_a_loader_given_replaces_the_split(self) -> None:
        task = make()
        assert len(task.predict(task.model, BATCHES[:1])[1]) == 16

    def test_a_missing_or_unknown_split_is_refused(self) -> None:
        task = make()
        with pytest.raises(TaskError, match=r"task 'Sequential' has no test data: give Task\(\.\.\., test=\.\.\.\)"):
            task.predict(task.model, split="test")
        with pytest.raises(TaskError, match="must be 'train', 'validation' or 'test', got 'dev'"):
            task.predict(task.model, split="dev")  # type: ignore[arg-type]

    def test_no_batches_are_refused(self) -> None:
        task = make()
        with pytest.raises(TaskError, match="validation: the loader gave no batches"):
            task.predict(task.model, [])


class TestScores:
    def test_the_teacher_score_has_a_standard_error(self) -> None:
        task = make()
        outputs, targets = task.predict(task.model)
        score = task.teacher_score()
        assert score.value == (outputs.argmax(1) == targets).double().mean().item()
        assert score.error is not None

    def test_the_reference_of_accuracy_is_the_majority_class(self) -> None:
        assert make().reference_score() == pytest.approx(CLASSES.bincount().max().item() / 50)

    def test_the_reference_of_cross_entropy_is_the_entropy_of_the_classes(self) -> None:
        shares = CLASSES.bincount() / 50
        entropy = -(shares * shares.log()).sum().item()
        assert make(metric=cross_entropy).reference_score() == pytest.approx(entropy, rel=1e-5)

    def test_the_reference_of_dense_classes_is_their_majority(self) -> None:
        images, masks = torch.rand(6, 1, 4, 4), torch.zeros(6, 4, 4, dtype=torch.int64)
        masks[:, 0] = 2
        task = make(model=nn.Conv2d(1, 3, 1), example_input=images[:1], validation=[(images, masks)])
        assert task.reference_score() == pytest.approx(0.75)

    def test_the_reference_of_a_regression_is_the_mean_output(self) -> None:
        values = INPUTS[:, :1]
        model = nn.Linear(4, 1)
        task = make(model=model, validation=[(INPUTS, values)], metric=mean_squared_error, loss=F.mse_loss)
        mean = model(INPUTS).mean()
        assert task.reference_score() == pytest.approx((values - mean).square().mean().item(), rel=1e-5)

    def test_the_reference_of_tuples_repeats_the_mean_of_each(self) -> None:
        def spread(outputs: tuple[Tensor, Tensor], targets: Tensor) -> float:
            return max(float(leaf.double().std(dim=0).max()) for leaf in outputs)

        inputs = (INPUTS[:8], INPUTS[8:16])
        model = Pair(lambda features: (features, features.argmax(1)))
        task = make(model=model, example_input=inputs, validation=[(inputs, CLASSES[:8])], metric=spread)
        assert task.reference_score() == pytest.approx(0, abs=1e-6)

    def test_a_metric_that_has_no_value_for_a_constant_is_measured_on_outputs_in_random_order(self) -> None:
        def correlation(outputs: Tensor, targets: Tensor) -> float:
            centered = outputs[:, 0] - outputs[:, 0].mean()
            if float(centered.abs().max()) < 1e-5:
                return float("nan")
            return float(torch.corrcoef(torch.stack([outputs[:, 0], targets[:, 0]]))[0, 1])

        task = make(model=nn.Identity(), validation=[(INPUTS, INPUTS)], metric=correlation, loss=F.mse_loss)
        assert task.teacher_score().value == pytest.approx(1)
        assert abs(task.reference_score()) < 0.5


class TestFingerprint:
    def test_it_is_that_of_model_validation_data_and_metric(self) -> None:
        task = make()
        assert task.fingerprint() == fingerprint(task.model, BATCHES, "accuracy")
        assert make(metric=mean_squared_error).fingerprint() != task.fingerprint()

    def test_train_data_does_not_count(self) -> None:
        assert make(train=BATCHES[:1]).fingerprint() == make().fingerprint()


class TestCheck:
    def test_the_score_found_is_kept(self) -> None:
        task = make()
        task.check()
        assert task._teacher_score == task.metric.score(*task.predict(task.model))

    def test_what_is_wrong_is_refused(self) -> None:
        with pytest.raises(TaskError, match="train: the loader is empty"):
            make(train=[]).check()
