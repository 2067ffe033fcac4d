"""Dense layers in bfloat16 by AMX, the matrix unit of Intel's processors, by `amx_linear.c`.

A small batch's dense layer takes as long as its weights take to be read. PyTorch's autocast copies
them to bfloat16 first and the gradient from bfloat16 afterwards; here they are rounded on the way
into the unit, and the gradient leaves it as it is summed.

N images, I inputs and O outputs, D threads.
"""

import ctypes
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnist_bench.kernels import build
from mnist_bench.kernels.amx import allowed

UNITS = 32  # inputs and outputs come in multiples of this
COUPLE = 32  # images that are computed together
MAX_IMAGES = 256  # of more, PyTorch is faster: it takes less time to read them


def amx_linear_serves(x_NI: Tensor, weight_OI: Tensor) -> bool:
    """Whether `amx_linear` computes this on this machine, and fast."""
    outputs, inputs = weight_OI.shape
    return (
        x_NI.dim() == 2
        and len(x_NI) <= MAX_IMAGES
        and weight_OI.dtype is torch.float32
        and inputs % UNITS == 0
        and outputs % UNITS == 0
        and _library() is not None
    )


def amx_linear(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
    """What `F.linear` computes from bfloat16 `x_NI`, for a layer that `amx_linear_serves` allows.

    Weights are float32, and rounded to bfloat16 for the products; sums are in float32.
    """
    output: Tensor = _AmxLinear.apply(x_NI, weight_OI, bias_O)
    return output


class _AmxLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight)
        outputs, threads = len(weight), _threads(weight)
        sums_DNO = weight.new_empty(threads, _filled_up(x), outputs)  # in tiles
        y = x.new_empty(len(x), outputs)
        tensors = (x, weight, bias, sums_DNO, y)
        build.call(_library(), "forward", threads, *x.shape, outputs, *tensors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad, outputs = grad.contiguous(), len(weight)
        tiles_2NO = grad.new_empty(2, _filled_up(x), outputs)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight, grad_bias = torch.empty_like(weight), weight.new_empty(outputs)
        tensors = (x, grad, weight, *tiles_2NO, grad_x, grad_weight, grad_bias)
        build.call(_library(), "backward", _threads(weight), *x.shape, outputs, *tensors)
        return grad_x, grad_weight, grad_bias


def _threads(weight_OI: Tensor) -> int:
    """Each takes some of the inputs."""
    return min(torch.get_num_threads(), weight_OI.shape[1] // UNITS)


def _filled_up(x_NI: Tensor) -> int:
    """Images in whole couples of blocks."""
    return math.ceil(len(x_NI) / COUPLE) * COUPLE


@cache
def _library() -> ctypes.CDLL | None:
    return build.library("amx_linear", torch.bfloat16, headers=("amx.h",)) if allowed() else None
