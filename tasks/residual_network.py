"""A plain residual convolution network, as a user would write one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.tasks.errors import TaskError

STAGES = 3


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to a shortcut: the identity, or 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        hidden = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A stem, three stages of residual blocks that halve the resolution and double the width, and a linear head.

    The names of the layers of a shallower network are a subset of those of a deeper one: ``stem``,
    ``stages.<stage>.<block>.conv1`` and so on.

    Args:
        width: Channels of the first stage; the others have two and four times as many.
        depth: Residual blocks in each stage.
        channels: Channels of the input images.
        classes: Number of classes.
    """

    def __init__(self, width: int, depth: int, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise TaskError(f"a ResidualNet needs width and depth of at least 1, got width {width} and depth {depth}")
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.stages = nn.Sequential(*(_stage(width, stage, depth) for stage in range(STAGES)))
        self.head = nn.Linear(width * 2 ** (STAGES - 1), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (N, channels, H, W) to logits of shape (N, classes)."""
        features = self.stages(F.relu(self.stem_norm(self.stem(images))))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def _stage(width: int, stage: int, depth: int) -> nn.Sequential:
    """The blocks of one stage; the first block of all stages but the first halves the resolution."""
    outputs = width * 2**stage
    first = ResidualBlock(outputs if stage == 0 else outputs // 2, outputs, stride=1 if stage == 0 else 2)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, stride=1) for _ in range(depth - 1)))
