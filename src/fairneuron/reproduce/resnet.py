"""ResNet-18 for images of 32 × 32 places (He et al. 2016, section 4.2), said briefly."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions beside a shortcut.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution; above 1, or where the number of channels changes, the
            shortcut is a convolution too.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, inputs, height, width)`` to ``(n, outputs, height / stride, width / stride)``."""
        h = self.first_norm(self.first(x)).relu()
        return (self.second_norm(self.second(h)) + self.shortcut(x)).relu()


def resnet18(*, width: int = 64, channels: int = 3, classes: int = 10) -> nn.Sequential:
    """Eighteen layers with weights: a convolution, eight blocks of two, a linear one.

    Args:
        width: Channels of the first blocks; the last ones have eight times as many. 64 is He et
            al.'s.
        channels: Of the images.
        classes: Logits.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage in range(4):
        outputs = width << stage
        layers += [Block(inputs, outputs, 1 if stage == 0 else 2), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
