"""Token classification: every character of a line of Python gets its colour, by a convolutional tagger.

The lines are those of Python's own standard library, tagged by its tokenizer; nothing is downloaded. Padding is tagged
-100, which counts neither in the loss nor in the metric: the F1 of whole spans (a keyword, a string), as for entities.

Run it:  python examples/token_classification.py             about a minute
         python examples/token_classification.py --small     seconds: less of everything
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kneepoint as kp

MODULES = ("argparse", "ast", "calendar", "csv", "dataclasses", "datetime", "difflib", "enum", "inspect", "textwrap")
KINDS = ("KEYWORD", "NUMBER", "STRING", "COMMENT")
LABELS = ("O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI"))
LENGTH, CHARACTERS, IGNORED = 48, 128, -100


class Tagger(nn.Module):
    """Characters (N, T) to logits (N, T, C): residual convolutions that see ever farther."""

    def __init__(self, width: int = 48, dilations: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, width)
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.head = nn.Linear(width, len(LABELS))

    def forward(self, characters: Tensor) -> Tensor:
        x = self.characters(characters).transpose(1, 2)
        for block in self.blocks:
            x = x + torch.relu(block(x))
        logits: Tensor = self.head(x.transpose(1, 2))
        return logits


def tagged_lines(module: str) -> Iterator[tuple[str, list[int]]]:
    """Lines of a module that hold whole tokens alone, and a class for each of their characters."""
    spec = importlib.util.find_spec(module)
    text = Path(str(spec and spec.origin)).read_text()
    lines = text.splitlines()
    tags: list[list[int]] = [[0] * len(line) for line in lines]
    broken: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (row, first), (last_row, last) = token.start, token.end
        name = tokenize.tok_name[token.type]
        kind = "KEYWORD" if keyword.iskeyword(token.string) else name
        if kind in KINDS and row != last_row:
            broken.update(range(row - 1, last_row))
        elif kind in KINDS:
            begin = LABELS.index(f"B-{kind}")
            tags[row - 1][first:last] = [begin] + [begin + 1] * (last - first - 1)
    yield from ((line, tags[row]) for row, line in enumerate(lines) if line.strip() and row not in broken)


def loader(modules: Sequence[str], shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    lines = [pair for module in modules for pair in tagged_lines(module) if pair[0].isascii()]
    characters = torch.zeros(len(lines), LENGTH, dtype=torch.int64)
    tags = torch.full((len(lines), LENGTH), IGNORED)
    for row, (line, classes) in enumerate(lines):
        characters[row, : len(line)] = torch.tensor([ord(sign) for sign in line[:LENGTH]])
        tags[row, : len(line)] = torch.tensor(classes[:LENGTH])
    return DataLoader(TensorDataset(characters, tags), 64, shuffle=shuffle)


def task(modules: Sequence[str] = MODULES, epochs: int = 6) -> kp.Task:
    """The problem: modules to train on, and two others to validate and to test."""
    torch.manual_seed(0)
    model, train, loss = Tagger(), loader(modules[:-2], shuffle=True), kp.losses.token_cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(epochs):
        for characters, tags in train:
            optimizer.zero_grad()
            loss(model(characters), tags).backward()
            optimizer.step()
    validation, test = loader(modules[-2:-1]), loader(modules[-1:])
    metric = kp.metrics.entity_f1(LABELS)
    return kp.Task(model, next(iter(validation))[0][:1], train, validation, test, metric, loss, name="python-colours")


def main(arguments: Sequence[str] | None = None) -> kp.Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", default="runs/token-classification")
    given = parser.parse_args(arguments)
    problem = task(("csv", "textwrap", "calendar"), epochs=2) if given.small else task()
    result = kp.search(
        problem,
        kp.joint_space(problem, weight_bits=(4, 8, 16), keep=(1.0, 0.75, 0.5), students=None),
        objectives=[kp.Accuracy(), kp.Accuracy(kp.metrics.token_accuracy), kp.Latency("x86-server"), kp.Size()],
        settings=kp.CompressionSettings(recovery=kp.Distillation(steps=5 if given.small else 60, learning_rate=1e-3)),
        trials=given.trials,
        out=given.out,
    )
    print(result.front.to_frame().to_string())
    return result


if __name__ == "__main__":
    main()
