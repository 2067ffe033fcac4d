"""Dropout whose masks do not hold up a training on a CPU."""

import torch
from torch import Tensor, nn

from mnist_bench.models.layers import computes_on_cpu

# PyTorch's own uniform floats have as many bits.
RATE_BITS = 24
BIT_OF_EACH_BYTE = 0x0101010101010101


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws as few random bits as its rate needs where it computes on a CPU.

    PyTorch draws a float for each element, on one thread. The function is the same: an element is
    dropped with probability `p`, to within 2⁻²⁴, and what is kept is divided by 1 - p.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not computes_on_cpu(input):
            return super().forward(input)
        mask = draw_mask(input.shape, self.p).to(input.dtype)
        return (input * mask).mul_(1 / (1 - self.p))


def draw_mask(shape: torch.Size, rate: float) -> Tensor:
    """Zeros and ones (int8), zero with probability `rate`, from PyTorch's CPU generator.

    64 elements at a time are the bits of a word. A bit that is one with probability q becomes one
    with (1 + q) / 2 by OR with a fair coin, and with q / 2 by AND, so the digits of 1 - `rate`,
    the last one first, lead there: one coin for 0.5, two for 0.25.
    """
    count = shape.numel()
    words = torch.zeros(-(-count // 64), dtype=torch.int64)
    kept = min(round((1 - rate) * 2**RATE_BITS), 2**RATE_BITS - 1)
    for digit in reversed(f"{kept:0{RATE_BITS}b}".rstrip("0")):
        coins = torch.empty_like(words).random_(-(2**63), None)  # all 64 bits
        words = words | coins if digit == "1" else words & coins
    bytes_8W = (words >> torch.arange(8)[:, None]) & BIT_OF_EACH_BYTE
    return bytes_8W.view(torch.int8).flatten()[:count].view(shape)
