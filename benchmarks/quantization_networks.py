"""What quantization.py quantizes: three networks trained on the same digits, and a BERT of random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.tasks import digits
from kneepoint.tasks.metrics import accuracy
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import fit
from kneepoint.tasks.weight_cache import load_weights, save_weights

SEQUENCE = 128
VOCABULARY = 30522  # of bert-base-uncased
TOPICS = 4
TOPIC_WORDS = 50


class SqueezeExcitation(nn.Module):
    """Channels weighted by what their means say (Hu et al., CVPR 2018), as MobileNetV3 has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, max(4, channels // 4), 1)
        self.up = nn.Conv2d(max(4, channels // 4), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excitation, projection (Howard et al., ICCV 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        wide = expansion * inputs
        self.expand = nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish())
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(wide), nn.Hardswish())
        self.excite = SqueezeExcitation(wide)
        self.project = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class DepthwiseNet(nn.Module):
    """A MobileNetV3 for small images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        shapes = ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1))
        self.blocks = nn.Sequential(*(InvertedResidual(*shape) for shape in shapes))
        self.last = nn.Sequential(nn.Conv2d(32, 96, 1, bias=False), nn.BatchNorm2d(96), nn.Hardswish())
        self.head = nn.Linear(96, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (N, 1, H, W) to logits of shape (N, 10)."""
        logits: Tensor = self.head(self.last(self.blocks(self.stem(images))).mean((2, 3)))
        return logits


class EncoderBlock(nn.Module):
    """Self-attention and a feed-forward network, normalized in front."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width), as ``x``."""
        y = self.norm1(x)
        query, key, value = (self._split(layer(y)) for layer in (self.query, self.key, self.value))
        weights = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(-1)
        attended: Tensor = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        transformed: Tensor = attended + self.down(F.gelu(self.up(self.norm2(attended))))
        return transformed

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class RowTransformer(nn.Module):
    """The rows of an image as tokens."""

    def __init__(self, rows: int = digits.CANVAS, width: int = 64, blocks: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(rows, width)
        self.position = nn.Parameter(0.02 * torch.randn(rows, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (N, 1, rows, rows) to logits of shape (N, 10)."""
        tokens = self.embed(images.squeeze(1)) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


class Encoder(nn.Module):
    """A Transformers encoder with token ids in, and a linear head on the mean of what it makes of the tokens."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, TOPICS)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, tokens) to logits of shape (N, topics)."""
        logits: Tensor = self.head(self.features(ids))
        return logits

    def features(self, ids: Tensor) -> Tensor:
        """(N, tokens) to (N, width)."""
        tokens: Tensor = self.encoder(input_ids=ids, return_dict=False)[0]
        return tokens.mean(1)


@dataclass(frozen=True)
class Recipe:
    """How one of the networks is made.

    Attributes:
        build: Makes it untrained.
        steps: Of training, batches of 64.
        learning_rate: The highest.
    """

    build: Callable[[], nn.Module]
    steps: int
    learning_rate: float


TRAINED: Mapping[str, Recipe | None] = {
    "residual": None,  # the quickstart's teacher, which comes with its task
    "depthwise": Recipe(DepthwiseNet, 1000, 4e-3),
    "transformer": Recipe(RowTransformer, 2000, 2e-3),
}


def task_of(name: str) -> Task:
    """The digits task with the network ``name`` of :data:`TRAINED`, which is trained once and then cached."""
    task = digits.task()
    recipe = TRAINED[name]
    if recipe is None:
        return task
    model = _trained(name, recipe, task)
    return Task(model, task.example_input, task.train, task.validation, task.test, accuracy, task.loss, name=name)


def bert_task() -> Task:
    """Four-layer BERT (BERT-small: width 512, 8 heads) with random weights, and a head trained to tell topics apart.

    A text of :data:`SEQUENCE` tokens draws half of them from its topic's own :data:`TOPIC_WORDS`.
    """
    from transformers import BertConfig, BertModel  # takes seconds

    with seeded(0):
        config = BertConfig(
            num_hidden_layers=4, hidden_size=512, num_attention_heads=8, intermediate_size=2048, vocab_size=VOCABULARY
        )
        model = Encoder(BertModel(config), config.hidden_size).eval()
        train, validation = [_texts(8) for _ in range(32)], [_texts(8) for _ in range(32)]
        _train_head(model, train)
    return Task(model, train[0][0][:1], train[:4], validation, name="bert")


def _texts(count: int) -> tuple[Tensor, Tensor]:
    """Token ids (count, tokens) and topics (count,)."""
    topics = torch.randint(0, TOPICS, (count,))
    of_topic = torch.randint(0, TOPIC_WORDS, (count, SEQUENCE)) + TOPIC_WORDS * topics.unsqueeze(1)
    chosen = torch.rand(count, SEQUENCE) < 0.5
    return torch.where(chosen, of_topic, torch.randint(0, VOCABULARY, (count, SEQUENCE))), topics


def _train_head(model: Encoder, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        features = torch.cat([model.features(ids) for ids, _ in batches])
    topics = torch.cat([labels for _, labels in batches])
    optimizer = torch.optim.Adam(model.head.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model.head(features), topics).backward()
        optimizer.step()


def _trained(name: str, recipe: Recipe, task: Task) -> nn.Module:
    with seeded(0):
        model = recipe.build()
    file = f"quantization-{name}-{recipe.steps}-{recipe.learning_rate}.safetensors"
    if not load_weights(model, file):
        rate = recipe.learning_rate
        fit(model, task.train, _loss, steps=recipe.steps, learning_rate=rate, weight_decay=1e-2, seed=0)
        save_weights(model, file)
    return model.eval()


def _loss(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(module(images), labels)
