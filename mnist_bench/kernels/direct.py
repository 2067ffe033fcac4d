"""The convolution of images of one channel, on a CPU with AVX-512, by `direct.c`, or in bfloat16 by
the matrix unit AMX, if there is one, by `direct_amx.c`.

A direct sum, and with it the pooling and the ReLU behind, so that the map between them stays in the
processor's cache.

N images, H rows, W columns, O output channels, P rows and Q columns of the map, k of a kernel.
"""

import ctypes
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnist_bench.kernels import amx, build
from mnist_bench.kernels.epilogue import NO_EPILOGUE, Epilogue, Shape

CHANNELS = 32  # outputs come in multiples of this
PIXELS = 14  # of a row, at most, whose sums are in registers at once
AMX_PIXELS = 32  # a row of a tile


def direct_serves(
    x_N1HW: Tensor, outputs: int, k: int, dtype: torch.dtype, stride: int, padding: str
) -> bool:
    """Whether `direct_conv2d` computes this on this machine, with kernels in float32.

    Images get no gradient.
    """
    rows, columns = (_length(size, k, stride, padding) for size in x_N1HW.shape[2:])
    return (
        x_N1HW.shape[1] == 1
        and outputs % CHANNELS == 0
        and x_N1HW.dtype is torch.float32
        and not x_N1HW.requires_grad
        and min(rows, columns) > 0
        and _library(dtype, k, stride, columns) is not None
    )


def direct_conv2d(
    x_N1HW: Tensor,
    weight_O1kk: Tensor,
    bias_O: Tensor,
    dtype: torch.dtype,
    stride: int,
    padding: str,
    epilogue: Epilogue = NO_EPILOGUE,
) -> Tensor:
    """What `F.conv2d` and the epilogue compute, in channels_last, for what `direct_serves` allows.

    Sums are in float32 whatever the `dtype` of the output is. AMX rounds images and kernels before,
    as PyTorch does.
    """
    settings = (dtype, stride, padding, epilogue)
    output: Tensor = _Direct.apply(x_N1HW, weight_O1kk, bias_O, *settings)
    return output


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        dtype: torch.dtype,
        stride: int,
        padding: str,
        epilogue: Epilogue,
    ) -> Tensor:
        weight = weight.contiguous()
        x = x.contiguous().to(dtype if _by_amx(dtype) else x.dtype)
        images, _, height, width = x.shape
        outputs, _, k, _ = weight.shape
        rows, columns = (_length(size, k, stride, padding) for size in (height, width))
        y, choice = epilogue.outputs((images, rows, columns, outputs), dtype)
        before = (k - 1) // 2 if padding == "same" else 0
        sizes = (images, height, width, 1, rows, columns, outputs, before)
        ctx.shape = Shape(*sizes, *epilogue)
        ctx.library = _library(dtype, k, stride, columns)
        ctx.save_for_backward(x, weight, choice)
        tensors = x, weight, bias, y, choice
        build.call(ctx.library, "forward", torch.get_num_threads(), ctx.shape, *tensors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, choice = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_weight, grad_bias = torch.empty_like(weight), weight.new_empty(len(weight))
        tensors = x, grad, choice, grad_weight, grad_bias
        build.call(ctx.library, "backward", torch.get_num_threads(), ctx.shape, *tensors)
        return None, grad_weight, grad_bias, None, None, None, None


def _length(size: int, k: int, stride: int, padding: str) -> int:
    """Of a row or column of the map."""
    return size if padding == "same" else (size - k) // stride + 1


def _by_amx(dtype: torch.dtype) -> bool:
    return dtype is torch.bfloat16 and amx.allowed()


@cache
def _library(dtype: torch.dtype, k: int, stride: int, columns: int) -> ctypes.CDLL | None:
    by_amx = _by_amx(dtype)
    pixels = AMX_PIXELS if by_amx else math.ceil(columns / math.ceil(columns / PIXELS))
    sizes = f"enum {{ KERNEL = {k}, STRIDE = {stride}, PIXELS = {pixels} }};"
    if by_amx:
        return build.library("direct_amx", dtype, sizes, headers=("direct.h", "amx.h"))
    return build.library("direct", dtype, sizes, headers=("direct.h",))
