"""Convolutions in bfloat16 by AMX, the matrix unit of Intel's processors, by `amx.c`.

A direct sum, and with it the pooling and the ReLU behind. It computes what PyTorch does in
bfloat16 (products of rounded maps and kernels, sums in float32), whose backward pass spends most of
its time on other layouts of memory.

N images, I input and O output channels, H rows, W columns, P rows and Q columns of the output, k of
a kernel, D threads.
"""

import ctypes
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnist_bench.kernels import build
from mnist_bench.kernels.epilogue import NO_EPILOGUE, Epilogue, Shape

CHANNELS = 32  # they come in multiples of this
IMAGES = 16  # that are computed together
# Linux lets a process use the unit when it has asked: ARCH_REQ_XCOMP_PERM of the kernel's
# Documentation/arch/x86/xstate.rst, for the state component of its tiles.
ARCH_PRCTL, REQUEST_PERMISSION, TILES = 158, 0x1023, 18


def amx_serves(in_channels: int, out_channels: int) -> bool:
    """Whether `amx_conv2d` computes such a layer on this machine."""
    divisible = in_channels % CHANNELS == 0 and out_channels % CHANNELS == 0
    return divisible and _library() is not None


def amx_conv2d(
    x_NIHW: Tensor,
    weight_OIkk: Tensor,
    bias_O: Tensor,
    padding: int,
    epilogue: Epilogue = NO_EPILOGUE,
) -> Tensor:
    """What `F.conv2d` and the epilogue compute, for a layer that `amx_serves` allows.

    Maps are bfloat16 and channels_last; kernels are float32, and rounded to bfloat16. The padding
    is less than a kernel.
    """
    output: Tensor = _Amx.apply(x_NIHW, weight_OIkk, bias_O, padding, epilogue)
    return output


class _Amx(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int, epilogue: Epilogue
    ) -> Tensor:
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        ctx.shape = shape = Shape.of(x, weight, padding, epilogue)
        y, choice = epilogue.outputs((shape.n, shape.p, shape.q, shape.k), x.dtype)
        tiles = _to_tiles("kernels_to_tiles", weight)
        build.call(_library(), "forward", _threads(x), shape, x, tiles, bias, y, choice)
        ctx.save_for_backward(x, weight, choice)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight, choice = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x, tiles = None, None
        if ctx.needs_input_grad[0]:
            grad_x, tiles = torch.empty_like(x), _to_tiles("turned_kernels_to_tiles", weight)
        threads = _threads(x)
        grads_DOkkI = weight.new_empty(threads, weight.numel())  # in tiles
        grad_bias = weight.new_empty(len(weight))
        tensors = (x, grad, choice, tiles, grad_x, grads_DOkkI, grad_bias)
        build.call(_library(), "backward", threads, ctx.shape, *tensors)
        grad_weight = torch.empty_like(weight)
        sizes = (threads, *_sizes(weight))
        build.call(_library(), "kernels_from_tiles", *sizes, grads_DOkkI, grad_weight)
        return grad_x, grad_weight, grad_bias, None, None


def _threads(x: Tensor) -> int:
    """Each takes blocks of images."""
    return min(torch.get_num_threads(), math.ceil(len(x) / IMAGES))


def _to_tiles(function: str, weight: Tensor) -> Tensor:
    """The matrices of kernels, rounded."""
    tiles = torch.empty_like(weight, dtype=torch.bfloat16)
    build.call(_library(), function, *_sizes(weight), weight, tiles)
    return tiles


def _sizes(weight_OIkk: Tensor) -> tuple[int, int, int]:
    """Outputs, inputs, and how often they meet."""
    outputs, inputs, k, _ = weight_OIkk.shape
    return outputs, inputs, k * k


@cache
def allowed() -> bool:
    """Whether there is such a unit and the system lets this process use it."""
    if not torch.cpu.get_capabilities().get("amx_bf16"):
        return False
    return not ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILES)


@cache
def _library() -> ctypes.CDLL | None:
    return build.library("amx", torch.bfloat16, headers=("amx.h",)) if allowed() else None
