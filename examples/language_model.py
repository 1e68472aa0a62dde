"""Language modelling: the next character of documentation, by a causal transformer; judged by perplexity.

The texts are the documentation of installed packages (kneepoint.tasks.documentation); nothing is downloaded. Targets
are the inputs shifted by one; a perplexity of p is as uncertain as p equally likely characters, and lower is better.

Run it:  python examples/language_model.py             about a minute
         python examples/language_model.py --small     seconds: less of everything
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import kneepoint as kp
from kneepoint.tasks.documentation import load_documents
from kneepoint.tasks.vocabulary import Vocabulary

PACKAGES = ("networkx", "sqlalchemy")
LENGTH = 48  # characters that a sample predicts


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each after a norm and with a residual add."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mix(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y: Tensor = x + self.down(F.gelu(self.up(self.norm_2(x))))
        return y


class CharacterModel(nn.Module):
    """Characters (N, T) to logits (N, T, C) of the one after each."""

    def __init__(self, vocabulary: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, characters: Tensor) -> Tensor:
        x = self.blocks(self.characters(characters) + self.places.weight)
        logits: Tensor = self.head(self.norm(x))
        return logits


def task(documents: int = 300, epochs: int = 6) -> kp.Task:
    """The problem: long texts cut into pieces of one length."""
    texts = load_documents(PACKAGES, documents)
    vocabulary = Vocabulary.of([one.text for one in texts if one.split == "train"], size=80, split=list)

    def loader(split: str) -> DataLoader[tuple[Tensor, ...]]:
        text = "\n".join(one.text for one in texts if one.split == split)
        starts = range(0, len(text) - LENGTH, LENGTH)
        numbers, _ = vocabulary.encode([text[start : start + LENGTH + 1] for start in starts], LENGTH + 1)
        return DataLoader(TensorDataset(numbers[:, :-1], numbers[:, 1:]), 32, shuffle=split == "train")

    torch.manual_seed(0)
    model, train, loss = CharacterModel(len(vocabulary)), loader("train"), kp.losses.token_cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(epochs):
        for characters, following in train:
            optimizer.zero_grad()
            loss(model(characters), following).backward()
            optimizer.step()
    validation, metric = loader("validation"), kp.metrics.perplexity
    example = next(iter(validation))[0][:1]
    return kp.Task(model, example, train, validation, loader("test"), metric, loss, name="characters")


def main(arguments: Sequence[str] | None = None) -> kp.Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", default="runs/language-model")
    given = parser.parse_args(arguments)
    problem = task(documents=40, epochs=1) if given.small else task()
    result = kp.search(
        problem,
        kp.joint_space(problem, weight_bits=(4, 8, 16), keep=(1.0, 0.75, 0.5), students=None),
        objectives=[kp.Accuracy(), kp.Latency("x86-server"), kp.Size()],
        settings=kp.CompressionSettings(recovery=kp.Distillation(steps=5 if given.small else 60, learning_rate=1e-3)),
        trials=given.trials,
        out=given.out,
    )
    print(result.front.to_frame().to_string())
    return result


if __name__ == "__main__":
    main()
