"""Which way computes which layer: the tables that decide, by rules that measurements gave.

`benchmarks/results/layers-*.md` has what each way costs, the README here what each is. The first
way of a table that serves is taken; where none does, PyTorch computes the layer itself. The tables
are for a CPU in eager mode. One rule holds on every device: a convolution that keeps a map of one
pixel multiplies it by the centres of its kernels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mnist_bench.kernels import build, pooling
from mnist_bench.kernels.amx import amx_serves
from mnist_bench.kernels.amx_linear import amx_linear_serves
from mnist_bench.kernels.direct import direct_serves
from mnist_bench.kernels.winograd import winograd_serves

# Of more 3 x 3 kernels, oneDNN wins in bf16.
WINOGRAD_BF16_KERNELS = 64 * 128
FOURIER_KERNEL_SIZE = 5
FOURIER_CHANNELS = 32
# oneDNN's product of matrices as PyTorch's compiler calls it; a PyTorch without oneDNN has none.
ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
# PyTorch asks MKL, which is faster on the processors of its maker.
MKL_IS_FASTER = "Intel" in str(torch.cpu.get_capabilities().get("cpu_name"))
# The types that our ways compute in.
FLOATS = (torch.float32, torch.bfloat16, torch.float64)


def computes_on_cpu(input: Tensor) -> bool:
    """Return whether a CPU computes this in eager mode: a compiler has its own ways."""
    return input.device.type == "cpu" and not torch.compiler.is_compiling()


def autocast_dtype(input: Tensor) -> torch.dtype:
    """Return the type in which a product with `input` is computed on a CPU."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype


def keeps_one_pixel(input: Tensor, padding: str) -> bool:
    """Return whether maps are of one pixel and stay so, whatever the kernel's size."""
    return padding == "same" and input.shape[2:] == (1, 1)


class Convolution(NamedTuple):
    """What decides how a convolution with square kernels is computed."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    padding: str  # valid or same
    dtype: torch.dtype  # in which it is computed
    compiled: bool = True  # whether C may compute it: its kernels are float32, and C is wanted
    input: Tensor | None = None  # (N, I, H, W); None before there is one

    def output_size(self) -> tuple[int, int]:
        """Return the rows and columns of the map."""
        assert self.input is not None
        rows, columns = self.input.shape[2:]
        if self.padding == "same":
            return rows, columns
        k, step = self.kernel_size, self.stride
        return (rows - k) // step + 1, (columns - k) // step + 1


def by_direct_sum(c: Convolution) -> bool:
    return (
        c.compiled
        and c.input is not None
        and direct_serves(c.input, c.out_channels, c.kernel_size, c.dtype, c.stride, c.padding)
    )


def by_amx(c: Convolution) -> bool:
    return (
        c.compiled
        and c.stride == 1
        and _pads_both_sides_alike(c)
        and c.dtype is torch.bfloat16
        and amx_serves(c.in_channels, c.out_channels)
    )


def by_winograd(c: Convolution) -> bool:
    few = c.in_channels * c.out_channels <= WINOGRAD_BF16_KERNELS
    return (
        c.compiled
        and c.stride == 1
        and _pads_both_sides_alike(c)
        and (c.dtype is torch.float32 or c.kernel_size > 3 or few)
        and winograd_serves(c.in_channels, c.out_channels, c.kernel_size, c.dtype)
    )


def by_fourier(c: Convolution) -> bool:
    return (
        c.padding == "valid"
        and c.stride == 1
        and c.in_channels >= FOURIER_CHANNELS
        and c.kernel_size >= FOURIER_KERNEL_SIZE
        and (c.input is None or c.input.shape[2] == c.input.shape[3])
    )


def by_blocks(c: Convolution) -> bool:
    """Return whether kernels do not overlap, so that one product of matrices is all."""
    return c.padding == "valid" and c.stride == c.kernel_size


def _pads_both_sides_alike(c: Convolution) -> bool:
    return c.padding == "valid" or c.kernel_size % 2 == 1


CONVOLUTIONS: dict[str, Callable[[Convolution], bool]] = {
    "direct": by_direct_sum,
    "amx": by_amx,
    "winograd": by_winograd,
    "fourier": by_fourier,
    "blocks": by_blocks,
}


def convolution_way(c: Convolution) -> str:
    """Return the name of the way that computes a convolution on a CPU, or `pytorch`.

    Without an input, what it will be for most: a square map of some channels.
    """
    if c.dtype not in FLOATS:
        return "pytorch"
    for way, serves in CONVOLUTIONS.items():
        if serves(c):
            return way
    return "pytorch"


def linear_way(input: Tensor, weight_OI: Tensor, compiled: bool) -> str:
    """Return the name of the way that computes a dense layer on a CPU, or `pytorch`."""
    if input.dim() != 2 or not len(input) or weight_OI.dtype is not torch.float32:
        return "pytorch"
    dtype = autocast_dtype(input)
    if dtype is torch.bfloat16 and compiled and amx_linear_serves(input, weight_OI):
        return "amx"
    if dtype is torch.float32 and ONEDNN_LINEAR is not None and not MKL_IS_FASTER:
        return "onednn"
    return "pytorch"


def pooling_way(input: Tensor, compiled: bool) -> str:
    """Return the name of the way that computes a max pooling of 2 x 2 on a CPU, or `pytorch`."""
    return "c" if compiled and pooling.serves(input) else "pytorch"


def dropout_way(input: Tensor, rate: float, compiled: bool) -> str:
    """Return the name of the way that drops on a CPU in training, or `pytorch`."""
    if not 0 < rate < 1 or not input.numel():
        return "pytorch"
    return "c" if compiled and build.library("dropout", input.dtype) is not None else "mask"
