from __future__ import annotations

import torch

from kneepoint.tasks.constant_predictor import constant_outputs


def test_logits_become_the_log_frequencies_of_the_classes() -> None:
    outputs = constant_outputs(torch.randn(4, 3), torch.tensor([2, 2, 2, 0]))
    assert torch.allclose(outputs[0].softmax(dim=0), torch.tensor([0.25, 0.0, 0.75]), atol=1e-6)
    assert torch.equal(outputs, outputs[:1].expand(4, 3))
    assert bool(outputs.isfinite().all())


def test_dense_logits_count_positions_and_skip_ignored_ones() -> None:
    targets = torch.full((2, 2, 2), -100)
    targets[0, 0] = 1
    outputs = constant_outputs(torch.randn(2, 3, 2, 2), targets)
    assert outputs.shape == (2, 3, 2, 2)
    assert bool((outputs.argmax(dim=1) == 1).all())


def test_other_outputs_become_their_mean_or_mode() -> None:
    floats, integers = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([4, 4, 9])
    outputs = constant_outputs({"floats": floats, "integers": integers}, torch.zeros(3))
    assert outputs["floats"].flatten().tolist() == [3, 3, 3]
    assert outputs["integers"].tolist() == [4, 4, 4]


def test_tokens_have_their_classes_on_the_last_axis() -> None:
    targets = torch.tensor([[2, 2, -100, -100, -100], [2, 0, 2, -100, -100]])
    outputs = constant_outputs(torch.randn(2, 5, 3), targets)
    assert outputs.shape == (2, 5, 3)
    assert torch.allclose(outputs[1, 4].softmax(dim=0), torch.tensor([0.2, 0.0, 0.8]), atol=1e-6)


def test_every_output_goes_by_its_own_targets() -> None:
    logits, boxes = torch.randn(4, 3), torch.tensor([[0.0], [2.0], [2.0], [4.0]])
    digits = torch.tensor([1, 1, 1, 0])
    for outputs, targets in (
        ({"digit": logits, "box": boxes, "aux": None}, {"digit": digits, "box": boxes}),
        ((logits, boxes), (digits, boxes)),
    ):
        made = constant_outputs(outputs, targets)
        digit, box = (made["digit"], made["box"]) if isinstance(made, dict) else made
        assert bool((digit.argmax(dim=1) == 1).all())
        assert box.flatten().tolist() == [2, 2, 2, 2]
