"""Several outputs, as detectors have them: which digit is on a canvas, and in which box.

The digits ship with scikit-learn and are pasted onto canvases here; nothing is downloaded. The network returns a dict,
targets are a dict with the same keys, and every head has its own loss and its own metric: two objectives.

Run it:  python examples/several_outputs.py             about a minute
         python examples/several_outputs.py --small     seconds: less of everything
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import kneepoint as kp

CANVAS, DIGIT = 20, 8
DIGIT_RIGHT = kp.metrics.of_output("digit", kp.metrics.accuracy)
BOX_IOU = kp.metrics.of_output("box", kp.metrics.box_iou, name="box_iou")
LOSS = kp.losses.by_output({"digit": F.cross_entropy, "box": F.smooth_l1_loss}, weights={"box": 20.0})


class Detector(nn.Module):
    """Images (N, 1, 20, 20) to logits of the digit (N, 10) and its box (N, 4) as shares of the canvas."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2 if inputs > 1 else 1, 1, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(inplace=True)]
        self.trunk = nn.Sequential(*layers)
        self.hidden = nn.Linear(2 * width * 25, 4 * width)
        self.digit, self.box = nn.Linear(4 * width, 10), nn.Linear(4 * width, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.hidden(self.trunk(images).flatten(1)))
        return {"digit": self.digit(x), "box": self.box(x).sigmoid()}


def loader(count: int, seed: int, shuffle: bool = False) -> DataLoader[tuple[Tensor, dict[str, Tensor]]]:
    """Canvases with a digit at a random place, its class, and its left, top, right and bottom."""
    generator = torch.Generator().manual_seed(seed)
    data = load_digits()
    samples = []
    for _ in range(count):
        one = int(torch.randint(len(data.images), (), generator=generator))
        shape = torch.tensor(data.images[one], dtype=torch.float32) / 16
        image = 0.1 * torch.randn(1, CANVAS, CANVAS, generator=generator)
        top, left = torch.randint(0, CANVAS - DIGIT + 1, (2,), generator=generator).tolist()
        image[0, top : top + DIGIT, left : left + DIGIT] += shape
        inked = (shape > 0).nonzero()
        (first, before), (last, after) = inked.amin(dim=0).tolist(), inked.amax(dim=0).tolist()
        box = torch.tensor([left + before, top + first, left + after + 1, top + last + 1]) / CANVAS
        samples.append((image, {"digit": torch.tensor(data.target[one]), "box": box}))
    return DataLoader(samples, 64, shuffle=shuffle)  # type: ignore[arg-type]  # a list is a dataset


def task(images: int = 2000, epochs: int = 15) -> kp.Task:
    """The problem; validation and test have a quarter of the training's images each."""
    train = loader(images, seed=0, shuffle=True)
    validation, test = (loader(images // 4, seed) for seed in (1, 2))
    torch.manual_seed(0)
    model = Detector()
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(epochs):
        for inputs, targets in train:
            optimizer.zero_grad()
            LOSS(model(inputs), targets).backward()
            optimizer.step()
    example = next(iter(validation))[0][:1]
    return kp.Task(model, example, train, validation, test, DIGIT_RIGHT, LOSS, name="digit-and-box")


def main(arguments: Sequence[str] | None = None) -> kp.Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", default="runs/several-outputs")
    given = parser.parse_args(arguments)
    problem = task(images=160, epochs=2) if given.small else task()
    result = kp.search(
        problem,
        kp.joint_space(problem, weight_bits=(4, 8, 16), keep=(1.0, 0.75, 0.5), students=None),
        objectives=[kp.Accuracy(), kp.Accuracy(BOX_IOU), kp.Latency("x86-server"), kp.Size()],
        settings=kp.CompressionSettings(recovery=kp.Distillation(steps=5 if given.small else 60, learning_rate=1e-3)),
        trials=given.trials,
        out=given.out,
    )
    print(result.front.to_frame().to_string())
    return result


if __name__ == "__main__":
    main()
