"""Max pooling of 2 x 2 on a CPU with AVX-512, by `pooling.c`.

PyTorch keeps the place of each maximum as eight bytes and clears the gradient before it fills it;
here it is one byte, and the gradient is written once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnist_bench.kernels import build
from mnist_bench.kernels.epilogue import Epilogue

CHANNELS = 16  # they come in multiples of this


def serves(x_NCHW: Tensor) -> bool:
    """Whether `max_pool_2x2` takes such maps on this machine."""
    divisible, large = x_NCHW.shape[1] % CHANNELS == 0, min(x_NCHW.shape[2:]) > 1
    return divisible and large and build.library("pooling", x_NCHW.dtype) is not None


def max_pool_2x2(x_NCHW: Tensor) -> Tensor:
    """What `F.max_pool2d(x, 2)` computes, in channels_last, of maps that `serves` allows."""
    pooled: Tensor = _MaxPool.apply(x_NCHW)
    return pooled


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = ctx.shape = x.shape
        y, choice = Epilogue(pool=True).outputs((images, height, width, channels), x.dtype)
        assert choice is not None
        ctx.save_for_backward(choice)
        _call("forward", x.shape, x, y, choice)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (choice,) = ctx.saved_tensors
        images, channels, height, width = ctx.shape
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad.new_empty(images, height, width, channels).permute(0, 3, 1, 2)
        _call("backward", ctx.shape, grad, choice, grad_x)
        return grad_x


def _call(function: str, shape_NCHW: torch.Size, *tensors: Tensor) -> None:
    images, channels, height, width = shape_NCHW
    library = build.library("pooling", tensors[0].dtype)
    sizes = (images, height, width, channels)
    build.call(library, function, torch.get_num_threads(), *sizes, *tensors)
