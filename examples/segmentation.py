"""Image segmentation: which pixels of a noisy canvas belong to which digit, by a small U-Net; judged by the mean IoU.

The digits ship with scikit-learn and are pasted onto canvases here; nothing is downloaded. Pixels at the rim of a digit
belong to nobody: their target is -100, which counts neither in the loss nor in the metric.

Run it:  python examples/segmentation.py             about a minute
         python examples/segmentation.py --small     seconds: less of everything
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import kneepoint as kp

CANVAS, DIGIT, IGNORED = 24, 8, -100
KINDS = 4  # the digits 0 to 3 are the classes 1 to 4; class 0 is the background


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    """Images (N, 1, 24, 24) to logits (N, C, 24, 24): down twice, up twice, with what was seen on the way down."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first, self.second = convolution(1, width), convolution(width, 2 * width)
        self.middle = convolution(2 * width, 4 * width)
        self.up_2, self.up_1 = (nn.ConvTranspose2d(2 * n * width, n * width, 2, stride=2) for n in (2, 1))
        self.third, self.fourth = convolution(4 * width, 2 * width), convolution(2 * width, width)
        self.head = nn.Conv2d(width, 1 + KINDS, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        second = self.second(F.max_pool2d(first, 2))
        x = self.middle(F.max_pool2d(second, 2))
        x = self.third(torch.cat([self.up_2(x), second], dim=1))
        x = self.fourth(torch.cat([self.up_1(x), first], dim=1))
        logits: Tensor = self.head(x)
        return logits


def canvases(count: int, seed: int) -> TensorDataset:
    """Canvases with two digits side by side, each at a random place of its half, and a class for every pixel."""
    generator = torch.Generator().manual_seed(seed)
    data = load_digits(n_class=KINDS)
    shapes, kinds = torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)
    images = 0.15 * torch.randn(count, 1, CANVAS, CANVAS, generator=generator)
    classes = torch.zeros(count, CANVAS, CANVAS, dtype=torch.int64)
    for index in range(count):
        for left in (0, CANVAS // 2):
            one = int(torch.randint(len(shapes), (), generator=generator))
            row, column = torch.randint(0, CANVAS - DIGIT, (2,), generator=generator).tolist()
            where = slice(row, row + DIGIT), slice(left + column // 4, left + column // 4 + DIGIT)
            images[index, 0][where] += shapes[one]
            classes[index][where] = torch.where(shapes[one] > 0.5, 1 + int(kinds[one]), classes[index][where])
            classes[index][where].masked_fill_((shapes[one] > 0.2) & (shapes[one] <= 0.5), IGNORED)
    return TensorDataset(images, classes)


def task(images: int = 800, epochs: int = 6) -> kp.Task:
    """The problem; validation and test have a quarter of the training's images each."""
    train = DataLoader(canvases(images, seed=0), 32, shuffle=True)
    validation, test = (DataLoader(canvases(images // 4, seed), 64) for seed in (1, 2))
    torch.manual_seed(0)
    model, loss = UNet(), nn.functional.cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(epochs):
        for inputs, targets in train:
            optimizer.zero_grad()
            loss(model(inputs), targets).backward()
            optimizer.step()
    example, metric = next(iter(validation))[0][:1], kp.metrics.mean_iou
    return kp.Task(model, example, train, validation, test, metric, loss, name="digits-by-pixel")


def main(arguments: Sequence[str] | None = None) -> kp.Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", default="runs/segmentation")
    given = parser.parse_args(arguments)
    problem = task(images=120, epochs=2) if given.small else task()
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
