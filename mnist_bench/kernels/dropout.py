"""Dropout whose masks do not hold up a training on a CPU."""

import ctypes
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mnist_bench.kernels import build
from mnist_bench.kernels.dispatch import computes_on_cpu, dropout_way

# PyTorch's own uniform floats have as many bits.
RATE_BITS = 24
BIT_OF_EACH_BYTE = 0x0101010101010101


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws its masks fast where it computes on a CPU.

    PyTorch draws a float for each element, on one thread. The function is the same: an element is
    dropped with probability `p`, to within 2⁻²⁴, and what is kept is divided by 1 - p.
    """

    compiled = True  # whether C may draw

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not computes_on_cpu(input):
            return super().forward(input)
        way = dropout_way(input, self.p, self.compiled)
        if way == "c":
            seed = int(torch.empty((), dtype=torch.int64).random_())
            output: Tensor = _Dropout.apply(input, Coins.of(seed, self.p))
            return output
        if way == "mask":
            mask = draw_mask(input.shape, self.p).to(input.dtype)
            return (input * mask).mul_(1 / (1 - self.p))
        return super().forward(input)


class Coins(ctypes.Structure):
    """`coins` of dropout.c."""

    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
    ]

    @classmethod
    def of(cls, seed: int, rate: float) -> Self:
        """To drop with probability `rate`, less than 1, to within 2⁻³²."""
        return cls(seed, min(round(rate * 2**32), 2**32 - 1), 1 / (1 - rate))


class _Dropout(torch.autograd.Function):
    """The gradient goes through the same mask, which is drawn again rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, coins: Coins) -> Tensor:
        ctx.coins = coins
        return drop(x, coins)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return drop(grad, ctx.coins), None


def drop(x: Tensor, coins: Coins) -> Tensor:
    """x with zeros for what the coins drop, the rest divided by 1 - rate, by `dropout.c`."""
    x = x.contiguous()
    y = torch.empty_like(x)
    library = build.library("dropout", x.dtype)
    build.call(library, "drop", torch.get_num_threads(), x.numel(), coins, x, y)
    return y


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
