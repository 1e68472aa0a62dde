from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression import teacher_outputs
from kneepoint.compression.compressor import Compressor
from kneepoint.compression.distillation import Distillation, begin_distillation, distill, distillation_loss
from kneepoint.compression.settings import CompressionSettings
from kneepoint.compression.simulation import trainable_simulation
from kneepoint.compression.student_store import StudentStore, load_tensors, store_tensors
from kneepoint.compression.teacher_outputs import ask
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task

SpaceOf = Callable[[str], JointSpace]


def test_a_student_comes_nearer_and_the_teacher_keeps_its_mode(space_of: SpaceOf) -> None:
    task = space_of("vision").task
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    task.model.train()
    task.model.before.eval()  # type: ignore[union-attr]  # a module, frozen by the user
    try:
        losses = distill(task, student, Distillation(30, 1e-2, alpha=1.0), seed=0)
        assert task.model.training
        assert not task.model.before.training  # type: ignore[union-attr]  # a module
    finally:
        task.model.eval()
    assert losses[-1] < losses[0]


def test_distillation_stops_anywhere_and_goes_on_from_a_file(space_of: SpaceOf, tmp_path: Path) -> None:
    task, settings = space_of("vision").task, Distillation(6, 1e-2)
    with seeded(0):
        students = [nn.Sequential(nn.Flatten(), nn.Linear(64, 3))]
    students += [copy.deepcopy(students[0]) for _ in range(2)]
    losses = distill(task, students[0], settings, seed=1)
    first = begin_distillation(task, students[1], settings, seed=1)
    before = first.advance(4)
    stored = store_tensors(tmp_path, first.state())
    second = begin_distillation(task, students[2], settings, seed=1)
    second.restore(load_tensors(tmp_path, stored))
    assert (first.step, second.step, second.steps) == (4, 4, 6)
    assert before + second.advance() == losses
    assert all(torch.equal(*pair) for pair in zip(students[0].parameters(), students[2].parameters(), strict=True))


EVERYTHING = Distillation(
    steps=5,
    learning_rate=1e-2,
    accumulation=2,
    hidden_hints=0.5,
    attention_hints=0.5,
    dynamic_weights=True,
    follow_gap=True,
    general_share=0.4,
)


def narrow() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 3))


def trained(task: Task, settings: Distillation, stop: int | None = None) -> list[Tensor]:
    """What the training makes of a student; with ``stop``, in two halves, the second of which is another object."""
    module = narrow()
    training = begin_distillation(task, module, settings, seed=2)
    training.advance(stop)
    if stop is not None:
        state, module = training.state(), narrow()
        resumed = begin_distillation(task, module, settings, seed=2)
        resumed.restore(state)
        resumed.advance()
    return list(module.state_dict().values())


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_all_that_a_loss_learns_and_remembers_is_stored(space_of: SpaceOf) -> None:
    task = space_of("vision").task
    whole = trained(task, EVERYTHING)
    assert all(same(trained(task, EVERYTHING, stop), whole) for stop in (1, 3))
    assert begin_distillation(task, narrow(), EVERYTHING, 2).state().keys() >= {
        "loss.hints.projections.0.weight",
        "loss.weights.means",
        "loss.schedule.gap",
        "loss.calls",
    }


@pytest.mark.parametrize("steps", [20, 6])
def test_a_kept_teacher_teaches_the_same_and_is_asked_once(
    space_of: SpaceOf, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = space_of("vision").task
    task = Task(known.model, known.example_input, known.train, known.validation)
    asked: list[Any] = []

    def counted(task: Task, inputs: Any) -> Any:
        asked.append(inputs)
        return ask(task, inputs)

    monkeypatch.setattr(teacher_outputs, "ask", counted)
    settings = Distillation(steps, 1e-2)
    kept = trained(task, settings)
    if steps < 2 * 4:
        assert asked == []  # a pass and a half: nothing would come of it
    else:
        assert len(asked) == 4
    assert same(trained(task, settings), kept)
    assert len(asked) in (0, 4)
    assert same(trained(task, settings, stop=5), kept)
    for one, other in zip(trained(task, replace(settings, teacher_cache_mb=0.0)), kept, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["8", "4 pruned"])
def test_every_part_goes_through_quantizers(name: str, space_of: SpaceOf, tmp_path: Path) -> None:
    space = space_of("vision")
    settings = CompressionSettings(recovery=EVERYTHING, calibration_samples=24)
    compressor = Compressor(space, StudentStore(tmp_path), 0, settings)
    keep = dict.fromkeys(space.teacher.groups, 0.5) if "pruned" in name else {}
    bits = LayerPolicy.of_bits(int(name[0]))
    layers = {key: layer.admit(bits) for key, layer in space.teacher.layers.items()}
    compressed = compressor.compress(Policy.build(keep=keep, layers=layers))
    module = trainable_simulation(compressed.network, compressed.folded, compressed.plan)
    hints = distillation_loss(space.task, module, EVERYTHING).hints
    assert hints is not None
    assert hints.states
    recovered = compressor.recover(compressed)
    again = compressor.recover(compressed)
    assert all(torch.equal(value, again.tensors[key]) for key, value in recovered.tensors.items())
    assert any(not torch.equal(value, compressed.state[key]) for key, value in recovered.tensors.items())


def test_text_learns_from_attention_in_bfloat16_too() -> None:
    with seeded(0):
        teacher, student = Attentive(heads=4), Attentive(heads=2)
        batches = [(torch.randint(0, 9, (8, 6)), torch.randint(0, 3, (8, 6))) for _ in range(3)]
    batches[0][1][:, 4:] = -100
    task = Task(teacher, batches[0][0][:1], batches, batches, loss=token_loss)
    settings = Distillation(12, 1e-2, alpha=0.9, attention_hints=1.0, hidden_hints=0.5, precision="bfloat16")
    loss = distillation_loss(task, student, settings)
    assert loss.hints is not None
    assert len(loss.hints.attention) == 1
    losses = distill(task, student, settings, seed=0)
    assert losses[-1] < losses[0]
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


class Attentive(nn.Module):
    """Tokens (N, T) to logits (N, T, C)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(9, 8)
        self.mix, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.mix(x).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        logits: Tensor = self.head(x + self.out(attended))
        return logits


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.transpose(1, 2), targets)
