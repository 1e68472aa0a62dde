from __future__ import annotations

import pickle

import pytest
import torch
from torch.nn import functional as F

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.losses import by_output, classification_loss, next_token_cross_entropy, token_cross_entropy
from kneepoint.tasks.task import Loss

LOGITS = torch.randn(3, 7, 5)
TARGETS = torch.randint(5, (3, 7)).index_fill(1, torch.tensor([6]), -100)


def test_the_loss_of_tokens_leaves_ignored_ones_out() -> None:
    expected = F.cross_entropy(LOGITS[:, :6].reshape(-1, 5), TARGETS[:, :6].reshape(-1))
    assert torch.allclose(token_cross_entropy(LOGITS, TARGETS), expected)
    assert torch.allclose(token_cross_entropy({"logits": LOGITS}, TARGETS), expected)


def test_the_loss_of_the_next_token_shifts() -> None:
    assert torch.equal(
        next_token_cross_entropy(LOGITS, TARGETS),
        token_cross_entropy(LOGITS[:, :-1], TARGETS[:, 1:]),
    )


def test_the_loss_of_classes_finds_their_axis() -> None:
    assert torch.allclose(classification_loss(LOGITS, TARGETS), token_cross_entropy(LOGITS, TARGETS))
    assert torch.allclose(classification_loss(LOGITS.movedim(-1, 1), TARGETS), token_cross_entropy(LOGITS, TARGETS))
    assert torch.equal(classification_loss(LOGITS[:, 0], TARGETS[:, 0]), F.cross_entropy(LOGITS[:, 0], TARGETS[:, 0]))


@pytest.mark.parametrize("loss", [token_cross_entropy, next_token_cross_entropy])
def test_other_shapes_are_refused(loss: Loss) -> None:
    with pytest.raises(TaskError, match=r"a metric or loss of tokens needs outputs of shape \(N, T, C\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64))


def test_losses_by_output_are_weighed_and_added() -> None:
    outputs = {"digit": torch.randn(4, 3), "box": torch.randn(4, 4)}
    targets = {"digit": torch.randint(3, (4,)), "box": torch.randn(4, 4)}
    loss = by_output({"digit": F.cross_entropy, "box": F.mse_loss}, weights={"box": 5.0})
    expected = F.cross_entropy(outputs["digit"], targets["digit"]) + 5 * F.mse_loss(outputs["box"], targets["box"])
    assert torch.allclose(loss(outputs, targets), expected)
    positions = by_output({0: F.cross_entropy, 1: F.mse_loss}, weights={1: 5.0})
    assert torch.allclose(positions(tuple(outputs.values()), tuple(targets.values())), expected)
    assert torch.allclose(pickle.loads(pickle.dumps(loss))(outputs, targets), expected)  # noqa: S301


def test_losses_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TaskError, match=r"need a loss for every weight, got losses of \['a'\], weights \{'b': 2\.0\}"):
        by_output({"a": F.mse_loss}, weights={"b": 2.0})
    with pytest.raises(TaskError, match=r"got losses of \[\]"):
        by_output({})
    with pytest.raises(TaskError, match=r"there is no target 'a' among the targets \['b'\]"):
        by_output({"a": F.mse_loss})({"a": torch.zeros(1)}, {"b": torch.zeros(1)})
