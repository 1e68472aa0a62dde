"""One training loop for teachers, students and recovery, which can stop at any step and go on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kneepoint.tasks.batch_cursor import BatchCursor
from kneepoint.tasks.errors import JobFailed, RunError, TaskError
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import GeneratorStates, digest_seed, generators_kept, seeded

BatchLoss = Callable[[nn.Module, Any, Any], Tensor]
"""``loss(module, inputs, targets) -> scalar tensor``.

One that is itself a module is trained and stored along: its parameters are what it learns, its buffers what it
remembers.
"""

Progress = Callable[[int, int, float], None]
"""``on_progress(steps done, steps in all, loss of the last step)``."""

Precision = Literal["auto", "float32", "bfloat16"]
"""What a loss is computed in: ``bfloat16`` where autocast does so; ``auto`` is that on a GPU and float32 elsewhere."""

WARM_UP = 0.15  # share of the steps in which the learning rate rises


class Training:
    """A training of a module in place with AdamW under a linear warm-up and a cosine decay to zero.

    At once, in slices, or from a stored state in another process: the weights in the end are the same to the last bit,
    and depend on the arguments and the number of threads alone. While it does not advance, the global generators and
    the module's mode are as they were.

    Args:
        module: The network; its parameters with ``requires_grad`` are trained, in train mode.
        batches: A re-iterable of (inputs, targets) pairs; iterated again whenever it ends.
        loss: Maps the module and a batch to a scalar, lower is better.
        steps: The number of optimizer steps.
        learning_rate: The highest learning rate, reached after the warm-up.
        weight_decay: Decoupled weight decay of the parameters with two or more dimensions; norms and biases have none.
        seed: Seeds the global generators while training.
        warm_up: The share of the steps in which the learning rate rises, in [0, 1].
        accumulation: Batches whose mean loss makes one step.
        precision: What the loss is computed in; weights and their moments stay in float32.

    Attributes:
        steps: The number of optimizer steps.
        step: How many are done.

    Raises:
        TaskError: There is nothing to train, or a number makes no sense.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Iterable[Any],
        loss: BatchLoss,
        *,
        steps: int,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-3,
        seed: int = 0,
        warm_up: float = WARM_UP,
        accumulation: int = 1,
        precision: Precision = "float32",
    ) -> None:
        _check(steps, warm_up, accumulation, precision)
        self.steps = steps
        self.step = 0
        self._module = module
        self._loss = loss
        self._optimizer = _optimizer(_trained(module, loss), learning_rate, weight_decay)
        self._learning_rate = learning_rate
        self._warm_up = warm_up
        self._accumulation = accumulation
        self._autocast = _autocast(precision, next(module.parameters()).device.type)
        self._batches = BatchCursor(batches, seed)
        self._generators = GeneratorStates.of_seed(digest_seed("training", seed))

    def advance(self, until: int | None = None, on_progress: Progress | None = None) -> list[float]:
        """Train to the end, or until ``until`` steps are done.

        Args:
            until: Steps done afterwards; one that is behind, or beyond the end, is no error.
            on_progress: Called after every step.

        Returns:
            The loss of every step that was done now.

        Raises:
            TaskError: There is nothing to train on.
            JobFailed: The loss became infinite or NaN.
        """
        end = self.steps if until is None else min(until, self.steps)
        losses: list[float] = []
        with generators_kept(), module_mode(self._module, training=True):
            while self.step < end:
                losses.append(self._one_step())
                if on_progress is not None:
                    on_progress(self.step, self.steps, losses[-1])
        return losses

    def state(self) -> dict[str, Tensor]:
        """Where the training is: all that it needs to go on, as tensors by name, which are its own."""
        parts = {
            "batches": self._batches.state(),
            "generators": self._generators.tensors(),
            "module": _tensors(self._module),
            "loss": _tensors(self._loss),
            "optimizer": _moments(self._optimizer),
        }
        flat = {
            f"{part}.{name}": value.detach().clone() for part, found in parts.items() for name, value in found.items()
        }
        return {**flat, "step": torch.tensor(self.step)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where ``state`` was taken, by a training that was made of the same arguments.

        Raises:
            RunError: It is the state of another training.
        """
        for owner, part in ((self._module, "module"), (self._loss, "loss")):
            _load(_tensors(owner), _part(state, part), part)
        try:
            self.step = int(state["step"])
            self._batches.restore(_part(state, "batches"))
            self._generators = GeneratorStates.of_tensors(_part(state, "generators"))
            _load_moments(self._optimizer, _part(state, "optimizer"))
        except (KeyError, ValueError) as error:
            raise RunError(f"the stored state is not one of this training: {error}; begin it again") from error

    def _one_step(self) -> float:
        rate = self._learning_rate * schedule(self.step, self.steps, self._warm_up)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        value = sum(self._accumulate() for _ in range(self._accumulation)) / self._accumulation
        finite = _finite(value, self.step, self.steps, rate)
        self._optimizer.step()
        self.step += 1
        return finite

    def _accumulate(self) -> float:
        """The loss of the next batch; its share of the gradient is added to what is there."""
        inputs, targets = self._batches.next()
        self._generators.set()
        with self._autocast:
            value = self._loss(self._module, inputs, targets)
        torch.autograd.backward(value / self._accumulation if self._accumulation > 1 else value)
        self._generators = GeneratorStates.now()
        return float(value.detach())


def fit(
    module: nn.Module,
    batches: Iterable[Any],
    loss: BatchLoss,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-3,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> list[float]:
    """Trains ``module`` in place from beginning to end; :class:`Training` says how.

    Args:
        module: The network; its parameters with ``requires_grad`` are trained, in train mode.
        batches: A re-iterable of (inputs, targets) pairs; iterated again whenever it ends.
        loss: Maps the module and a batch to a scalar, lower is better.
        steps: The number of optimizer steps; give this or ``epochs``.
        epochs: The number of passes over ``batches``, whose length is counted where it has none.
        learning_rate: The highest learning rate, reached after the warm-up.
        weight_decay: Decoupled weight decay of the parameters with two or more dimensions; norms and biases have none.
        seed: Seeds the global generators while training; they are restored afterwards.
        on_progress: Called after every step.

    Returns:
        The loss of every step.

    Raises:
        TaskError: The arguments contradict each other, there is nothing to train or nothing to train on.
        JobFailed: The loss became infinite or NaN.
    """
    total = _count_steps(batches, steps, epochs, seed)
    training = Training(
        module, batches, loss, steps=total, learning_rate=learning_rate, weight_decay=weight_decay, seed=seed
    )
    return training.advance(on_progress=on_progress)


def schedule(step: int, total: int, warm_up: float = WARM_UP) -> float:
    """The learning rate of a step over the highest one: a linear warm-up, then half a cosine down to zero.

    Args:
        step: Counted from 0.
        total: Steps in all.
        warm_up: The share of them in which the rate rises.
    """
    rising = max(1, round(warm_up * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising + 1) / (total - rising + 1)))


def _check(steps: int, warm_up: float, accumulation: int, precision: str) -> None:
    if steps < 1:
        raise TaskError(f"training needs at least one step, got {steps} (steps or epochs below 1, or no batches)")
    if not 0 <= warm_up <= 1:
        raise TaskError(f"the warm-up is a share of the steps, from 0 to 1, got {warm_up}")
    if accumulation < 1:
        raise TaskError(f"a step takes the gradients of one batch or more (accumulation), got {accumulation}")
    if precision not in ("auto", "float32", "bfloat16"):
        raise TaskError(f"the precision of training is 'auto', 'float32' or 'bfloat16', got {precision!r}")


def _autocast(precision: Precision, device: str) -> torch.autocast:
    reduced = precision == "bfloat16" or (precision == "auto" and device == "cuda")
    return torch.autocast(device, torch.bfloat16, enabled=reduced)


def _trained(module: nn.Module, loss: BatchLoss) -> list[nn.Parameter]:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise TaskError(f"nothing to train: {type(module).__name__} has no parameter with requires_grad")
    return [*trained, *(loss.parameters() if isinstance(loss, nn.Module) else ())]


def _optimizer(trained: list[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def _count_steps(batches: Iterable[Any], steps: int | None, epochs: int | None, seed: int) -> int:
    if (steps is None) == (epochs is None):
        raise TaskError(f"give either steps or epochs, got steps={steps} and epochs={epochs}")
    if steps is not None:
        return steps
    with seeded(seed):
        length = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
    return (epochs or 0) * length


def _tensors(owner: object) -> dict[str, Tensor]:
    """Parameters and buffers by name; those that do not persist, too, because a training may depend on them."""
    return {**dict(owner.named_parameters()), **dict(owner.named_buffers())} if isinstance(owner, nn.Module) else {}


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def _load(own: Mapping[str, Tensor], stored: Mapping[str, Tensor], part: str) -> None:
    for name in sorted({*own, *stored}):
        if name not in own or name not in stored or own[name].shape != stored[name].shape:
            raise RunError(
                f"the stored state is not one of this training: '{name}' of its {part} is not the same in both; begin "
                "it again"
            )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(stored[name])


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, moments in found.items() for name, value in moments.items()}


def _load_moments(optimizer: torch.optim.Optimizer, stored: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in stored.items():
        index, _, moment = name.partition(".")
        state.setdefault(int(index), {})[moment] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _finite(value: float, step: int, total: int, rate: float) -> float:
    if not math.isfinite(value):
        raise JobFailed(
            f"training diverged: the loss is {value} at step {step + 1} of {total} with learning rate {rate:.2g}: "
            "lower the learning rate or look for non-finite values in the data"
        )
    return value
