"""Winograd's convolution, for small kernels on a CPU with AVX-512.

A tile of m x m outputs of a k x k kernel takes (m + k - 1)² products and not m²k²: tile and kernel
are polynomials, known by their values at m + k - 1 points, and are multiplied point by point
(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). It computes what the
direct sum does, and errs by about 1e-6 where that errs by 3e-7.

PyTorch's operations would lose in memory what the products save; `winograd.c` keeps a block of
tiles in the processor's cache from pixels to pixels.

N images, I input and O output channels, H rows, W columns, P rows and Q columns of the output, k of
a kernel, T = m + k - 1 points along an axis, D threads.
"""

import ctypes
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnist_bench.kernels import build
from mnist_bench.kernels.epilogue import NO_EPILOGUE, Epilogue, Shape

CHANNELS = 32  # they come in multiples of this
# From so many kernels on, they do not stay in the cache, and all threads share blocks of so many
# tiles: a layer of 256 to 256 channels takes 0.6 of PyTorch's time, and 0.8 otherwise.
LARGE = 128 * 256
LARGE_BLOCK = 512


class Tile(NamedTuple):
    """m, the points beside infinity (pairs of opposites, then 0), and how many make a block."""

    size: int
    points: tuple[float, ...]
    block: int


# For each size of kernel and type of maps. These points err least: for 3 x 3, half as much as the
# usual 0, ±1, ±2. Larger tiles save products and err more, which the rounding of bfloat16 hides.
TILES = {
    (3, torch.float32): Tile(4, (5 / 8, -5 / 8, 3 / 2, -3 / 2, 0), 36),
    (5, torch.float32): Tile(3, (1 / 4, -1 / 4, 7 / 8, -7 / 8, 7 / 4, -7 / 4), 98),
    (3, torch.bfloat16): Tile(6, (1 / 2, -1 / 2, 1, -1, 2, -2, 0), 48),
    (5, torch.bfloat16): Tile(4, (1 / 2, -1 / 2, 1, -1, 2, -2, 0), 48),
}


class Matrices(NamedTuple):
    """To the points, a row for each, of tiles of the input and output and of a kernel.

    With a tile of the input d and a kernel g, the output is Aᵀ ((B d Bᵀ) ⊙ (G g Gᵀ)) A, where the
    names of Lavin and Gray are A for `output`, Bᵀ for `input` and G for `kernel`.
    """

    input: np.ndarray
    output: np.ndarray
    kernel: np.ndarray


def matrices(kernel_size: int, tile_size: int, points: tuple[float, ...]) -> Matrices:
    """Toom and Cook's interpolation at `points` and at infinity, float64."""
    size = len(points) + 1
    input_TT, infinity = np.zeros((size, size)), np.eye(size)[-1:]
    scale = np.ones((size, 1))
    for i, point in enumerate(points):
        others = [other for j, other in enumerate(points) if j != i]
        input_TT[i, :-1] = np.poly(others)[::-1]
        scale[i] = np.prod([point - other for other in others])
    input_TT[-1] = np.poly(points)[::-1]

    def powers(length: int) -> np.ndarray:
        return np.vstack([np.vander(points, length, increasing=True), infinity[:, -length:]])

    return Matrices(input_TT, powers(tile_size), powers(kernel_size) / scale)


def winograd_serves(
    in_channels: int, out_channels: int, kernel_size: int, dtype: torch.dtype = torch.float32
) -> bool:
    """Whether `winograd_conv2d` computes such a layer of maps of this type on this machine."""
    divisible = in_channels % CHANNELS == 0 and out_channels % CHANNELS == 0
    return divisible and (kernel_size, dtype) in TILES and _library(kernel_size, dtype) is not None


def winograd_conv2d(
    x_NIHW: Tensor,
    weight_OIkk: Tensor,
    bias_O: Tensor,
    padding: int,
    epilogue: Epilogue = NO_EPILOGUE,
) -> Tensor:
    """What `F.conv2d` and the epilogue compute, for a layer that `winograd_serves` allows.

    Maps are float32 or bfloat16, and channels_last; kernels are float32. Sums are in float32
    whatever the maps are.
    """
    output: Tensor = _Winograd.apply(x_NIHW, weight_OIkk, bias_O, padding, epilogue)
    return output


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int, epilogue: Epilogue
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.shape = shape = Shape.of(x, weight, padding, epilogue)
        library = _library(weight.shape[-1], x.dtype)
        kernels_TTIO = _kernels_to_points(library, x.dtype, weight.transpose(0, 1))
        y, choice = epilogue.outputs((shape.n, shape.p, shape.q, shape.k), x.dtype)
        threads, together = torch.get_num_threads(), _together(weight)
        build.call(library, "forward", threads, together, shape, x, kernels_TTIO, bias, y, choice)
        ctx.save_for_backward(x, weight, choice)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight, choice = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        library = _library(weight.shape[-1], x.dtype)
        threads, together = torch.get_num_threads(), _together(weight)
        kernels_TTOI = _kernels_to_points(library, x.dtype, weight)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grads_DTTIO = weight.new_zeros(1 if together else threads, *kernels_TTOI.mT.shape)
        grad_bias = weight.new_empty(len(weight))
        inputs, results = (x, grad, choice, kernels_TTOI), (grad_x, grads_DTTIO, grad_bias)
        build.call(library, "backward", threads, together, ctx.shape, *inputs, *results)
        grad_weight = torch.empty_like(weight)
        grad_IOkk = grad_weight.transpose(0, 1)
        sizes = (*grads_DTTIO.shape[:1], *grad_IOkk.shape[:2])
        build.call(
            library, "kernels_from_points", *sizes, grads_DTTIO, _steps(grad_IOkk), grad_IOkk
        )
        return grad_x, grad_weight, grad_bias, None, None


def _together(weight: Tensor) -> bool:
    """Whether all threads compute one block, which they do for many kernels."""
    return weight.shape[0] * weight.shape[1] >= LARGE


def _kernels_to_points(
    library: ctypes.CDLL | None, dtype: torch.dtype, weight_RCkk: Tensor
) -> Tensor:
    """For each of T x T points, a matrix of kernels with R rows and C columns, in panels."""
    rows, columns, k, _ = weight_RCkk.shape
    T = TILES[k, dtype].size + k - 1
    kernels_TTRC = weight_RCkk.new_empty(T, T, rows, columns)
    steps = _steps(weight_RCkk)
    build.call(library, "kernels_to_points", rows, columns, weight_RCkk, steps, kernels_TTRC)
    return kernels_TTRC


def _steps(weight_RCkk: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """From one kernel to the next along a column and a row, and from pixel to pixel."""
    row, column, kernel_row, pixel = weight_RCkk.stride()
    assert kernel_row == weight_RCkk.shape[-1] * pixel
    return (ctypes.c_int64 * 3)(row, column, pixel)


@cache
def _library(kernel_size: int, dtype: torch.dtype) -> ctypes.CDLL | None:
    return build.library("winograd", dtype, _constants(kernel_size, TILES[kernel_size, dtype]))


def _constants(kernel_size: int, tile: Tile) -> str:
    """The lines that winograd.c expects before its own."""
    found = matrices(kernel_size, tile.size, tile.points)
    # By how much the sums of an output can enlarge rounding errors, and twice that.
    growth = np.abs(found.output).sum(0).max() ** 2
    lines = [
        f"#define NOISE {float(growth * np.finfo(np.float32).eps)}f",
        f"enum {{ KERNEL = {kernel_size}, TILE = {tile.size}, POINTS = {len(tile.points) + 1} }};",
        f"enum {{ BLOCK = {tile.block}, LARGE_BLOCK = {LARGE_BLOCK} }};",
        *(
            f"static const float {name}[{len(array)}][{len(array[0])}] = {{"
            + ", ".join(f"{value!r}f" for value in array.ravel().tolist())
            + "};"
            for name, array in zip(("MAP", "GRADIENT", "WEIGHT"), found, strict=True)
        ),
    ]
    return "\n".join(lines)
