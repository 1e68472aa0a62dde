"""What distillation.py trains: images of digits, and docstrings whose package has to be named."""

from __future__ import annotations

import ast
import functools
import importlib.util
import itertools
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.quantization_networks import EncoderBlock
from kneepoint.tasks import digits
from kneepoint.tasks.metrics import accuracy
from kneepoint.tasks.seeding import digest_seed, seeded
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import fit
from kneepoint.tasks.weight_cache import load_weights, save_weights

PACKAGES = ("networkx", "numpy", "optuna", "scipy", "sklearn", "sympy", "torch", "transformers")
DOCSTRINGS = 1000  # of every package
WORDS = 24  # a sample
VOCABULARY = 2000
WINDOWS = 6  # of every docstring, at most
BATCH = 64
TEXT_TEACHER_STEPS = 1800
_WORD = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]")


@dataclass(frozen=True)
class Problem:
    """One of the problems.

    Attributes:
        task: Makes the teacher and its data.
        student: Makes an untrained student.
        steps: Of a student's training.
        learning_rate: The highest.
    """

    task: Callable[[], Task]
    student: Callable[[], nn.Module]
    steps: int
    learning_rate: float


class TextNet(nn.Module):
    """A small encoder of word ids (N, words) that gives logits (N, packages)."""

    def __init__(self, width: int, blocks: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.drop = nn.Dropout(dropout)
        self.position = nn.Parameter(0.02 * torch.randn(WORDS, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(PACKAGES))

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (N, words) to logits (N, packages)."""
        logits: Tensor = self.head(self.norm(self.blocks(self.drop(self.embed(ids) + self.position))).mean(1))
        return logits


def text_task() -> Task:
    """Which of :data:`PACKAGES` a piece of a docstring is from; the package's own name is left out."""
    (train, train_labels), validation, test = text_parts()
    loader = DataLoader(TensorDataset(train, train_labels), batch_size=BATCH, shuffle=True)
    model = _text_teacher(loader, len(train))
    return Task(
        model, train[:1], loader, _batches(*validation), _batches(*test), accuracy, F.cross_entropy, name="text"
    )


@functools.cache
def text_parts() -> tuple[tuple[Tensor, Tensor], ...]:
    """Word ids and packages of training, validation and test; no docstring is in two of them."""
    found = [(label, text) for label, package in enumerate(PACKAGES) for text in _docstrings(package)]
    random.Random(0).shuffle(found)  # noqa: S311 - the same on every machine
    ends = (0, round(0.5 * len(found)), round(0.75 * len(found)), len(found))
    parts = [found[start:end] for start, end in itertools.pairwise(ends)]
    counts = Counter(word for _, text in parts[0] for word in text)
    ids = {word: number for number, (word, _) in enumerate(counts.most_common(VOCABULARY - 1), 1)}
    return tuple(_windows(part, ids) for part in parts)


def _windows(part: list[tuple[int, list[str]]], ids: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    rows, labels = [], []
    for label, text in part:
        for start in range(0, min(len(text) - WORDS + 1, WINDOWS * WORDS), WORDS):
            rows.append([ids.get(word, 0) for word in text[start : start + WORDS]])
            labels.append(label)
    return torch.tensor(rows), torch.tensor(labels)


def _docstrings(package: str) -> list[list[str]]:
    """The words of a package's docstrings, different ones, in an order that depends on their files' names alone."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the text problem reads the docstrings of {package}, which is not installed")
    files = sorted(Path(spec.origin).parent.rglob("*.py"))
    random.Random(0).shuffle(files)  # noqa: S311 - the same on every machine
    found: dict[tuple[str, ...], None] = {}
    for file in files:
        for text in _docstrings_of(file):
            words = tuple(word for word in _WORD.findall(text.lower()) if word != package)
            if len(words) >= WORDS:
                found[words] = None
        if len(found) >= DOCSTRINGS:
            break
    return [list(words) for words in found][:DOCSTRINGS]


def _docstrings_of(file: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of other people's strings
        try:
            tree = ast.parse(file.read_text())
        except (SyntaxError, UnicodeDecodeError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield ast.get_docstring(node) or ""


def _batches(rows: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(x.clone(), y.clone()) for x, y in zip(rows.split(256), labels.split(256), strict=True)]


def _text_teacher(loader: DataLoader[tuple[Tensor, ...]], samples: int) -> nn.Module:
    with seeded(0):
        model = TextNet(width=96, blocks=2, heads=4, dropout=0.3)
    file = f"distillation-text-{TEXT_TEACHER_STEPS}-{samples}-{digest_seed(*map(str, loader.dataset[0])):x}.safetensors"
    if not load_weights(model, file):
        fit(model, loader, _loss, steps=TEXT_TEACHER_STEPS, learning_rate=3e-3, weight_decay=5e-2, seed=0)
        save_weights(model, file)
    return model.eval()


def _loss(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(module(inputs), targets)


PROBLEMS: Mapping[str, Problem] = {
    "digits": Problem(digits.task, lambda: digits.build_student(1, 0.5), 400, digits.STUDENT_LEARNING_RATE),
    "text": Problem(text_task, lambda: TextNet(width=16, blocks=1, heads=2), 800, 5e-3),
}
