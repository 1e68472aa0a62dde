"""Text classification: which package a docstring comes from, by a transformer over masked tokens.

The texts are the documentation of installed packages (kneepoint.tasks.documentation); nothing is downloaded.

Run it:  python examples/text_classification.py             about a minute
         python examples/text_classification.py --small     seconds: less of everything
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import kneepoint as kp
from kneepoint.tasks.documentation import load_documents
from kneepoint.tasks.vocabulary import Vocabulary

PACKAGES = ("networkx", "pandas", "sqlalchemy")
LENGTH = 32  # tokens


class TextClassifier(nn.Module):
    """A transformer encoder whose mean over tokens is classified; padding takes part in nothing."""

    def __init__(self, vocabulary: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, len(PACKAGES))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.words(input_ids) + self.places.weight
        for block in self.blocks:
            x = block(x, attention_mask[:, None, None].bool())
        kept = attention_mask.unsqueeze(2).to(x.dtype)
        logits: Tensor = self.head((x * kept).sum(dim=1) / kept.sum(dim=1))
        return logits


class Block(nn.Module):
    """Attention and a feed-forward layer, each after a norm and with a residual add."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (
            layer(normed).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y: Tensor = x + self.down(F.gelu(self.up(self.norm_2(x))))
        return y


def task(documents: int = 500, epochs: int = 8) -> kp.Task:
    """The problem: inputs are a dict, so they reach ``forward`` by name."""
    texts = load_documents(PACKAGES, documents)
    vocabulary = Vocabulary.of([one.text for one in texts if one.split == "train"], size=1500)

    def loader(split: str) -> DataLoader[tuple[dict[str, Tensor], Tensor]]:
        part = [one for one in texts if one.split == split]
        ids, mask = vocabulary.encode([one.text for one in part], LENGTH)
        labels = torch.tensor([PACKAGES.index(one.package) for one in part])
        samples = [({"input_ids": ids[i], "attention_mask": mask[i]}, labels[i]) for i in range(len(part))]
        return DataLoader(samples, 32, shuffle=split == "train")  # type: ignore[arg-type]  # a list is a dataset

    torch.manual_seed(0)
    model, train = TextClassifier(len(vocabulary)), loader("train")
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(epochs):
        for inputs, targets in train:
            optimizer.zero_grad()
            F.cross_entropy(model(**inputs), targets).backward()
            optimizer.step()
    validation = loader("validation")
    example = {name: value[:1] for name, value in next(iter(validation))[0].items()}
    return kp.Task(model, example, train, validation, loader("test"), kp.metrics.accuracy, name="text-classification")


def main(arguments: Sequence[str] | None = None) -> kp.Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", default="runs/text-classification")
    given = parser.parse_args(arguments)
    problem = task(documents=60, epochs=2) if given.small else task()
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
