"""Dropout whose masks do not hold up a training on a CPU."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws a byte for each element where it computes on a CPU.

    PyTorch draws a float for each, on one thread. The function is the same: an element is dropped
    with probability `p`, to within 2⁻³³, and what is kept is divided by 1 - p. A byte is enough
    for a rate that is a multiple of 1/256, such as 0.25 and 0.5; others take four.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        return input * draw_mask(input.shape, self.p) * (1 / (1 - self.p))


def draw_mask(shape: torch.Size, rate: float) -> Tensor:
    """A boolean mask that is false with probability `rate`, from PyTorch's CPU generator."""
    count = shape.numel()
    dtype, levels = (torch.int8, 2**8) if (rate * 2**8).is_integer() else (torch.int32, 2**32)
    words = torch.empty(-(-count * dtype.itemsize // 8), dtype=torch.int64)
    words.random_(-(2**63), None)  # all 64 bits
    return words.view(dtype)[:count].view(shape) >= round(rate * levels) - levels // 2
