from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kneepoint.compression.hints import MOST_HINTS, Hints, Pair, channel_axis, matched
from kneepoint.compression.observing import Observed


def states(*shapes: tuple[int, ...]) -> Observed:
    return Observed(additions=[(depth, torch.randn(shape)) for depth, shape in enumerate(shapes, 1)])


@pytest.mark.parametrize(
    ("student", "teacher", "axis"),
    [
        ((2, 4, 6, 6), (2, 8, 6, 6), 1),
        ((2, 6, 6, 4), (2, 6, 6, 8), 3),
        ((2, 4, 6, 6), (2, 4, 6, 6), 1),
        ((2, 5, 4), (2, 5, 4), 2),
        ((2, 5, 4), (2, 5, 6), 2),
        ((2, 4), (2, 6), 1),
        ((2, 4, 6, 6), (2, 8, 3, 3), None),
        ((2, 4), (2, 4, 1), None),
        ((2, 4), (3, 4), None),
        ((2,), (2,), None),
    ],
)
def test_values_match_where_they_differ_in_channels_alone(
    student: tuple[int, ...], teacher: tuple[int, ...], axis: int | None
) -> None:
    assert channel_axis(torch.zeros(student), torch.zeros(teacher)) == axis


def test_values_are_matched_at_equal_depth() -> None:
    deep = states(*[(2, 5, 8)] * 12)
    assert matched(states((2, 5, 4), (2, 5, 4)).states, deep.states) == [Pair(0, 5, 2), Pair(1, 11, 2)]
    assert matched(deep.states, states((2, 5, 4), (2, 5, 4)).states)[0] == Pair(0, 0, 2)


def test_there_are_few_and_they_are_spread() -> None:
    many = states(*[(2, 5, 8)] * 11)
    assert [pair.student for pair in matched(many.states, many.states)] == [0, 3, 7, 10]
    assert len(matched(many.states, many.states)) == MOST_HINTS


def test_only_what_fits_is_matched() -> None:
    student, teacher = states((2, 4, 8, 8), (2, 6, 4, 4)), states((2, 9, 8, 8), (2, 9, 2, 2))
    assert matched(student.states, teacher.states) == [Pair(0, 0, 1)]
    assert matched([], teacher.states) == matched(student.states, []) == []


def test_the_loss_of_equal_states_is_none_whatever_their_length() -> None:
    own = states((2, 5, 4), (2, 4, 3, 3))
    taught = Observed(additions=[(depth, 3 * value) for depth, value in own.additions])
    hints = Hints(own, taught, 0)
    assert float(hints.hidden_loss(own, taught)) == pytest.approx(0, abs=1e-6)
    opposite = Observed(additions=[(depth, -value) for depth, value in own.additions])
    assert float(hints.hidden_loss(own, opposite)) == pytest.approx(4)
    assert list(hints.parameters()) == []


def test_a_narrow_student_learns_through_a_projection_of_the_seed() -> None:
    own, taught = states((2, 4, 3, 3)), states((2, 9, 3, 3))
    before = torch.get_rng_state()
    first, same, other = (Hints(own, taught, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    (weight,), (again,), (another,) = (list(hints.parameters()) for hints in (first, same, other))
    assert weight.shape == (9, 4)
    assert torch.equal(weight, again)
    assert not torch.equal(weight, another)
    first.hidden_loss(own, taught).backward()
    assert weight.grad is not None
    assert bool(weight.grad.abs().sum() > 0)


def attention(*weights: Tensor) -> Observed:
    return Observed(attention=[(depth, value) for depth, value in enumerate(weights, 1)])


def test_attention_is_compared_where_positions_agree() -> None:
    one, other = torch.randn(2, 5, 5).softmax(-1), torch.randn(2, 5, 5).softmax(-1)
    hints = Hints(attention(one), attention(other), 0)
    assert float(hints.attention_loss(attention(one), attention(one))) == pytest.approx(0, abs=1e-6)
    expected = (other * (other / one).log()).sum(-1).mean()
    torch.testing.assert_close(hints.attention_loss(attention(one), attention(other)), expected)
    assert Hints(attention(one), attention(torch.randn(2, 5, 7).softmax(-1)), 0).attention == []


def test_attention_that_is_certain_makes_no_infinity() -> None:
    certain = torch.eye(5).expand(2, 5, 5)
    hints = Hints(attention(certain), attention(certain), 0)
    loss = hints.attention_loss(attention(certain.flip(-1).requires_grad_()), attention(certain))
    assert bool(loss.isfinite())
