from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kneepoint.tasks.errors import JobFailed, RunError, TaskError
from kneepoint.tasks.seeding import GeneratorStates, seeded
from kneepoint.tasks.training import WARM_UP, Precision, Training, fit, schedule

Batches = DataLoader[tuple[Tensor, ...]]


def squared_loss(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(module(inputs), targets)


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))


@pytest.fixture
def batches() -> Batches:
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)), batch_size=16, shuffle=True)


def test_the_loss_falls(network: nn.Sequential, batches: Batches) -> None:
    losses = fit(network, batches, squared_loss, epochs=40, learning_rate=0.02)
    assert len(losses) == 160
    assert sum(losses[-8:]) < 0.2 * sum(losses[:8])


def test_training_depends_on_its_seed_alone(network: nn.Sequential, batches: Batches) -> None:
    start = {name: value.clone() for name, value in network.state_dict().items()}
    runs = []
    for seed in (1, 1, 2):
        network.load_state_dict(start)
        torch.rand(3)
        runs.append(fit(network, batches, squared_loss, steps=10, seed=seed))
    assert runs[0] == runs[1] != runs[2]


def test_global_generators_and_modes_are_left_as_they_were(network: nn.Sequential, batches: Batches) -> None:
    network.eval()
    state = torch.get_rng_state()
    fit(network, batches, squared_loss, steps=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part.training for part in network.modules())


def test_the_network_trains_in_train_mode(network: nn.Sequential, batches: Batches) -> None:
    modes: list[bool] = []

    def watching(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        modes.append(module.training)
        return squared_loss(module, inputs, targets)

    fit(network.eval(), batches, watching, steps=3)
    assert modes == [True] * 3


def test_progress_is_told_after_every_step(network: nn.Sequential, batches: Batches) -> None:
    told: list[tuple[int, int, float]] = []
    losses = fit(network, batches, squared_loss, steps=6, on_progress=lambda *facts: told.append(facts))
    assert told == [(step + 1, 6, loss) for step, loss in enumerate(losses)]


def test_the_length_of_a_loader_without_one_is_counted(network: nn.Sequential, batches: Batches) -> None:
    class Unsized:
        def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
            return iter(batches)

    assert len(fit(network, Unsized(), squared_loss, epochs=2)) == 8


def test_only_parameters_that_require_a_gradient_move(network: nn.Sequential, batches: Batches) -> None:
    network[0].requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit(network, batches, squared_loss, steps=3)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"3.weight", "3.bias"}


def test_weight_decay_leaves_biases_alone(batches: Batches) -> None:
    module = nn.Linear(3, 1)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    fit(module, batches, lambda m, x, y: 0 * m(x).sum(), steps=5, learning_rate=0.1, weight_decay=1.0)
    assert module.bias.item() == 1
    assert bool((module.weight < 0.9).all())


def test_a_diverging_loss_fails_the_job_with_its_step_and_rate(network: nn.Sequential, batches: Batches) -> None:
    steps: list[int] = []

    def exploding(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        steps.append(1)
        return squared_loss(module, inputs, targets) * (float("inf") if len(steps) == 3 else 1)

    with pytest.raises(JobFailed, match=r"the loss is inf at step 3 of 20 with learning rate 0\.5: lower the learning"):
        fit(network, batches, exploding, steps=20, learning_rate=0.5)


@pytest.mark.parametrize("count", [{}, {"steps": 1, "epochs": 1}])
def test_steps_and_epochs_exclude_each_other(network: nn.Sequential, batches: Batches, count: dict[str, int]) -> None:
    with pytest.raises(TaskError, match="give either steps or epochs, got steps="):
        fit(network, batches, squared_loss, **count)  # type: ignore[arg-type]


def test_no_steps_are_refused(network: nn.Sequential, batches: Batches) -> None:
    with pytest.raises(TaskError, match="training needs at least one step, got 0"):
        fit(network, batches, squared_loss, epochs=0)
    with pytest.raises(TaskError, match="training needs at least one step, got 0"):
        fit(network, [], squared_loss, epochs=2)


def test_an_iterator_runs_out(network: nn.Sequential, batches: Batches) -> None:
    with pytest.raises(TaskError, match="training ran out of batches: they must be re-iterable"):
        fit(network, iter(batches), squared_loss, steps=10)


def test_nothing_to_train_is_refused(batches: Batches) -> None:
    with pytest.raises(TaskError, match="nothing to train: Tanh has no parameter with requires_grad"):
        fit(nn.Tanh(), batches, squared_loss, steps=1)


@given(st.integers(1, 500))
def test_the_schedule_rises_to_one_and_falls_to_almost_nothing(total: int) -> None:
    rates = [schedule(step, total) for step in range(total)]
    peak = max(1, round(WARM_UP * total)) - 1
    assert rates[peak] == 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert all(0 < rate <= 1 for rate in rates)


# --- stopping and going on ---------------------------------------------------------------------------------------


class Remembering(nn.Module):
    """A loss that learns a scale and remembers how often it was asked."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.tensor(0.0), persistent=False)

    def forward(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return squared_loss(module, inputs, targets * self.scale) * (1 + 0.1 * self.calls)


def fresh(batches: Batches, steps: int = 9, accumulation: int = 1) -> tuple[nn.Module, Training]:
    with seeded(0):
        module = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 1))
    loss = Remembering()
    training = Training(module, batches, loss, steps=steps, learning_rate=0.02, accumulation=accumulation, seed=3)
    return module, training


def weights(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_slices_and_restored_trainings_give_the_same_weights(batches: Batches, accumulation: int) -> None:
    whole, training = fresh(batches, accumulation=accumulation)
    losses = training.advance()
    sliced, training = fresh(batches, accumulation=accumulation)
    found: list[float] = []
    for until in (*range(9), 20):
        stored = safetensors.torch.load(safetensors.torch.save(training.state()))
        other, resumed = fresh(batches, accumulation=accumulation)
        torch.rand(until + 1)
        resumed.restore(stored)
        assert found + resumed.advance() == losses
        assert same(weights(other), weights(whole))
        found += training.advance(until)
    assert found == losses
    assert same(weights(sliced), weights(whole))


def test_a_state_is_of_its_moment_and_restoring_goes_back(batches: Batches) -> None:
    module, training = fresh(batches)
    training.advance(4)
    state = training.state()
    losses = training.advance()
    after = weights(module)
    training.restore(state)
    assert training.step == 4
    assert training.advance() == losses
    assert same(weights(module), after)


def test_nothing_global_moves_between_slices(batches: Batches) -> None:
    module, training = fresh(batches)
    module.eval()
    before = GeneratorStates.now().tensors()
    training.advance(5)
    restored = fresh(batches)[1]
    restored.restore(training.state())
    restored.advance(7)
    after = GeneratorStates.now().tensors()
    assert all(torch.equal(value, after[name]) for name, value in before.items() if not name.endswith("gauss"))
    assert not any(part.training for part in module.modules())
    assert training.advance(3) == []


def test_the_state_of_another_training_is_refused(batches: Batches) -> None:
    state = fresh(batches)[1].state()
    other = Training(nn.Linear(3, 1), batches, squared_loss, steps=2)
    with pytest.raises(RunError, match=r"not one of this training: '0\.bias' of its module is not the same in both"):
        other.restore(state)
    without = {name: value for name, value in state.items() if name != "batches.seen"}
    with pytest.raises(RunError, match="not one of this training: 'seen'; begin it again"):
        fresh(batches)[1].restore(without)


def test_accumulated_batches_make_the_step_of_a_larger_one() -> None:
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
    found = []
    for size, accumulation in ((16, 2), (32, 1)):
        with seeded(0):
            module = nn.Linear(3, 1)
        loader = DataLoader(data, batch_size=size)
        Training(module, loader, squared_loss, steps=5, accumulation=accumulation).advance()
        found.append(module.weight.detach())
    torch.testing.assert_close(found[0], found[1])


def test_bfloat16_computes_in_it_and_keeps_float32_weights(network: nn.Sequential, batches: Batches) -> None:
    seen = []

    def watching(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(module(inputs).dtype)
        return squared_loss(module, inputs, targets)

    precisions: tuple[Precision, ...] = ("bfloat16", "auto", "float32")
    for precision in precisions:
        Training(network, batches, watching, steps=1, precision=precision).advance()
    assert seen == [torch.bfloat16, torch.float32, torch.float32]
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warm_up": 1.5}, r"the warm-up is a share of the steps, from 0 to 1, got 1\.5"),
        ({"accumulation": 0}, r"gradients of one batch or more \(accumulation\), got 0"),
        ({"precision": "half"}, "is 'auto', 'float32' or 'bfloat16', got 'half'"),
    ],
)
def test_senseless_numbers_are_refused(
    network: nn.Sequential, batches: Batches, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        Training(network, batches, squared_loss, steps=2, **wrong)
