"""The quickstart's problem: handwritten digits that were shifted, turned, dimmed and covered with noise.

The 1,797 images of 8x8 pixels ship with scikit-learn, so nothing is downloaded. Each stands on a canvas of 12x12
pixels; "clean" means upright in its center. 1,078 images train, 359 validate and 360 test; validation and test are each
expanded tenfold by fixed perturbations, so that a validation accuracy near 97 % has a standard error near 0.3 %.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.metrics import accuracy
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.residual_network import ResidualNet
from kneepoint.tasks.seeding import digest_seed, seeded
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import Progress, fit
from kneepoint.tasks.weight_cache import load_weights, save_weights

CANVAS = 12  # pixels a side
BATCH = 64  # the fastest batch of these networks on two CPU cores
EXPANSION = 10  # perturbed copies of each validation and test image
QUICK_EXPANSION = 2
SPLIT_SEED = 0
VALIDATION_SIZE = 359
TEST_SIZE = 360

MAX_SHIFT = 2.0  # pixels, along each axis
MAX_ROTATION = 20.0  # degrees
MIN_CONTRAST = 0.6  # the maximum is 1
NOISE = 0.1  # standard deviation, where full ink is 1

STUDENT_DEPTHS = (1, 2)
STUDENT_WIDTHS = (0.375, 0.5, 0.625)  # with the depths: six students of 6 to 40 % of the teacher's parameters
STUDENT_STEPS = 1000  # at BATCH; all six train in about 40 seconds on two threads
STUDENT_LEARNING_RATE = 1e-2


@dataclass(frozen=True)
class TeacherRecipe:
    """All that the teacher's weights depend on, apart from the data and the number of threads."""

    width: int = 16
    depth: int = 2
    steps: int = 1500
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    seed: int = 0

    @property
    def file_name(self) -> str:
        """The name of the teacher's cache file, which changes with anything that its weights depend on."""
        data = (CANVAS, BATCH, SPLIT_SEED, VALIDATION_SIZE, TEST_SIZE, MAX_SHIFT, MAX_ROTATION, MIN_CONTRAST, NOISE)
        recipe = json.dumps([asdict(self), data, ResidualNet.__name__, torch.__version__])
        return f"digits-teacher-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.safetensors"


TEACHER = TeacherRecipe()
QUICK_TEACHER = TeacherRecipe(steps=120)


@dataclass(frozen=True)
class Part:
    """Clean images of shape (N, 1, 12, 12) with full ink at 1, and their digits of shape (N,)."""

    images: Tensor
    labels: Tensor


class AugmentedLoader:
    """Batches of perturbed training images, other ones at every pass; a re-iterable of (images, labels).

    Order and perturbations are drawn from torch's global generator, so ``seeded`` governs them.
    """

    def __init__(self, part: Part, batch: int = BATCH) -> None:
        self.part = part
        self.batch = batch

    def __len__(self) -> int:
        return math.ceil(len(self.part.labels) / self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.part.labels))
        images = perturb(self.part.images[order])
        yield from _batches(images, self.part.labels[order], self.batch)


def task(quick: bool = False, progress: Progress | None = None) -> Task:
    """The quickstart's task, with a teacher that is trained on the first call and kept in the cache folder.

    Args:
        quick: A smaller problem for tests: a teacher of few steps, a fifth of the validation and test samples.
        progress: Called as ``progress(steps done, steps in all, loss)`` while the teacher is trained.
    """
    train, validation, test = load_parts()
    copies = QUICK_EXPANSION if quick else EXPANSION
    return Task(
        model=_teacher(QUICK_TEACHER if quick else TEACHER, train, progress),
        example_input=validation.images[:1].clone(),
        train=AugmentedLoader(train),
        validation=_perturbed_batches(validation, copies, "validation"),
        test=_perturbed_batches(test, copies, "test"),
        metric=accuracy,
        loss=F.cross_entropy,
        name="digits-quick" if quick else "digits",
    )


def build_student(depth: int, width: float) -> ResidualNet:
    """An untrained network of the teacher's family; the caller seeds torch.

    Args:
        depth: Residual blocks in each of the three stages.
        width: Up to 1 a fraction of the teacher's width, above 1 the number of channels of the first stage.

    Raises:
        TaskError: The depth or the width leaves nothing.
    """
    return ResidualNet(width=round(width * TEACHER.width) if width <= 1 else round(width), depth=depth)


def clean_test_accuracy(module: nn.Module) -> float:
    """Top-1 accuracy in [0, 1] on the 360 clean test images."""
    test = load_parts()[2]
    with module_mode(module, training=False), torch.inference_mode():
        outputs = torch.cat([module(images) for images, _ in _batches(test.images, test.labels, BATCH)])
    return accuracy(outputs, test.labels)


def perturb(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shifts, turns, dims and adds noise to each image by its own random amounts.

    Args:
        images: Shape (N, 1, H, W), full ink at 1.
        generator: The source of the amounts; torch's global generator where None.

    Returns:
        New images of the same shape.
    """
    if images.dim() != 4:
        raise TaskError(f"images must have shape (N, 1, H, W), got {tuple(images.shape)}")
    count = len(images)
    angles = _symmetric((count,), generator) * math.radians(MAX_ROTATION)
    # The grid's unit is half a canvas.
    shifts = _symmetric((count, 2), generator) * MAX_SHIFT * 2 / images.shape[-1]
    cosines, sines = angles.cos(), angles.sin()
    matrices = torch.stack([cosines, -sines, shifts[:, 0], sines, cosines, shifts[:, 1]], dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    contrasts = MIN_CONTRAST + (1 - MIN_CONTRAST) * torch.rand((count, 1, 1, 1), generator=generator)
    return moved * contrasts + NOISE * torch.randn(images.shape, generator=generator)


@functools.cache
def load_parts() -> tuple[Part, Part, Part]:
    """The clean train, validation and test images: disjoint, stratified by digit, the same at every call."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = torch.as_tensor(bunch.target, dtype=torch.int64)
    images = F.pad(torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16, [(CANVAS - 8) // 2] * 4)
    everything = torch.arange(len(labels)).numpy()
    split = functools.partial(train_test_split, random_state=SPLIT_SEED)
    rest, test = split(everything, test_size=TEST_SIZE, stratify=labels.numpy())
    train, validation = split(rest, test_size=VALIDATION_SIZE, stratify=labels.numpy()[rest])
    parts = [Part(images[indices], labels[indices]) for indices in map(torch.as_tensor, (train, validation, test))]
    return parts[0], parts[1], parts[2]


def _batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Slices of ``size`` images and labels; the last one may be shorter."""
    for start in range(0, len(labels), size):
        yield images[start : start + size], labels[start : start + size]


def _symmetric(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Uniform in [-1, 1)."""
    return 2 * torch.rand(shape, generator=generator) - 1


def _perturbed_batches(part: Part, copies: int, name: str) -> list[tuple[Tensor, Tensor]]:
    """Fixed perturbed copies of every image of a part, in batches."""
    generator = torch.Generator().manual_seed(digest_seed("digits", name, SPLIT_SEED))
    images = perturb(part.images.repeat(copies, 1, 1, 1), generator)
    labels = part.labels.repeat(copies)
    # Clones, because a pickled slice would carry the whole tensor along.
    return [(x.clone(), y.clone()) for x, y in _batches(images, labels, BATCH)]


def _teacher(recipe: TeacherRecipe, train: Part, progress: Progress | None) -> ResidualNet:
    """The trained teacher in eval mode, from the cache where it is there."""
    with seeded(recipe.seed):
        model = ResidualNet(recipe.width, recipe.depth)
    if not load_weights(model, recipe.file_name):
        fit(
            model,
            AugmentedLoader(train),
            _cross_entropy,
            steps=recipe.steps,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            seed=recipe.seed,
            on_progress=progress,
        )
        save_weights(model, recipe.file_name)
    return model.eval()


def _cross_entropy(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(module(images), labels)
