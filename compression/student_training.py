"""Students are trained once, in slices: one that cannot reach the front stops after any of them, others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from kneepoint.compression.distillation import Distillation, begin_distillation
from kneepoint.compression.student_store import StudentStore
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import AxisValue
from kneepoint.spaces.students import StudentFamily, describe
from kneepoint.tasks.seeding import digest_seed
from kneepoint.tasks.training import Progress, Training

SLICES = (0.25, 0.5)
"""Shares of a student's steps after which it is looked at. The first lies behind the warm-up of the learning rate."""

Told = Callable[[str], Progress | None]
"""Makes what is told of a training from what it is called."""


class StudentTrainer:
    """Trains the members of a space's family; what is stored is not trained again.

    Trained in slices, on one worker or on several, or at once, a student's weights are the same to the last bit.

    Args:
        space: Has a family.
        store: Keeps the weights of trained students, and the state of those that are not.
        seed: Governs first weights, batches and augmentation.
        settings: How students learn.
    """

    def __init__(self, space: JointSpace, store: StudentStore, seed: int, settings: Distillation) -> None:
        self._space = space
        self._store = store
        self._seed = seed
        self._settings = settings

    def weights(self, family: StudentFamily, student: Mapping[str, AxisValue], told: Told) -> dict[str, Tensor]:
        """Parameters and buffers of a trained student, by their names in its module."""
        name = describe(student)
        key = self._key(name)
        stored = self._store.load(key)
        if stored is None:
            module = self._trained(family, student, self._settings.steps, told(f"student {name}"))
            stored = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
            self._store.store(key, stored)
            for share in SLICES:
                self._store.forget(self._state_key(name, self._steps(share)))
        return stored

    def after_slice(
        self, family: StudentFamily, student: Mapping[str, AxisValue], number: int, told: Told
    ) -> nn.Module:
        """The module of a student after the slice of that number, counted from 0; its state is stored to go on from."""
        name = describe(student)
        return self._trained(family, student, self._steps(SLICES[number]), told(f"student {name}"))

    def _trained(
        self, family: StudentFamily, student: Mapping[str, AxisValue], until: int, progress: Progress | None
    ) -> nn.Module:
        name = describe(student)
        module = family.make(student, digest_seed("student", name, self._seed))
        seed = digest_seed("distill", name, self._seed)
        training = begin_distillation(self._space.task, module, self._settings, seed)
        self._go_on(training, name, until)
        if training.step < until:
            training.advance(until, progress)
            if until < training.steps:
                self._store.store(self._state_key(name, until), training.state())
        return module

    def _go_on(self, training: Training, name: str, until: int) -> None:
        """From the latest state that is stored."""
        for steps in sorted((self._steps(share) for share in SLICES), reverse=True):
            state = self._store.load(self._state_key(name, steps)) if steps <= until else None
            if state is not None:
                training.restore(state)
                return

    def _steps(self, share: float) -> int:
        return max(1, round(share * self._settings.steps))

    def _key(self, name: str) -> str:
        return f"{name} seed={self._seed} {self._settings}"

    def _state_key(self, name: str, steps: int) -> str:
        return f"{self._key(name)} after {steps} steps"
