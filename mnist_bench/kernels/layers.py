"""PyTorch's layers, computed another way where that is faster on a CPU: `dispatch.py` says which.

Parameters, buffers and settings are PyTorch's: `accelerate` makes a layer of PyTorch one of these
by changing its class. N images, C channels (I in, O out), H rows, W columns. Tensors are
(N, C, H, W) as in PyTorch, but some are *pixel-major*: (H, W, N, C) in memory, where a pixel of the
whole batch is one row.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from mnist_bench.kernels import pooling
from mnist_bench.kernels.amx import amx_conv2d
from mnist_bench.kernels.amx_linear import amx_linear
from mnist_bench.kernels.direct import direct_conv2d
from mnist_bench.kernels.dispatch import (
    ONEDNN_LINEAR,
    Convolution,
    autocast_dtype,
    computes_on_cpu,
    convolution_way,
    keeps_one_pixel,
    linear_way,
    pooling_way,
)
from mnist_bench.kernels.epilogue import Epilogue
from mnist_bench.kernels.fourier import fourier_conv2d
from mnist_bench.kernels.winograd import winograd_conv2d

POOL_SIZE = 2


class Conv2d(nn.Conv2d):
    """A convolution with square kernels by the fastest of several ways, on a CPU.

    The function is the same up to rounding.
    """

    # Whether maps of one pixel are multiplied by the kernels' centres; a switch for measurements.
    centre_tap = True
    # Whether C may compute it.
    compiled = True
    # The types of maps in which the next layer wants its input in that layout.
    pixel_major: Collection[torch.dtype] = ()

    def forward(self, input: Tensor, behind: Sequence[nn.Module] = ()) -> Tensor:
        """`behind` is computed too: nothing, a `MaxPool2d`, a ReLU or both in this order."""
        padding = padding_name(self) or ""
        if self.centre_tap and keeps_one_pixel(input, padding):
            return _through(behind, self._centre(input))
        if not computes_on_cpu(input) or input.dim() != 4 or not input.numel():
            return _through(behind, super().forward(input))
        epilogue = Epilogue(*(any(isinstance(x, kind) for x in behind) for kind in EPILOGUE))
        weight, bias = self.weight, self.bias
        assert bias is not None
        compiled = self.compiled and weight.dtype is torch.float32
        layer = self.described(autocast_dtype(input), padding, compiled, input)
        if min(layer.output_size()) < (POOL_SIZE if epilogue.pool else 1):
            return _through(behind, super().forward(input))  # which says so
        way = convolution_way(layer)
        if way == "direct":
            dtype, stride = layer.dtype, layer.stride
            output = direct_conv2d(input, weight, bias, dtype, stride, padding, epilogue)
            return self._laid_out(output)
        if way in SPATIAL:
            around = layer.kernel_size // 2 if padding == "same" else 0
            return SPATIAL[way](input.to(layer.dtype), weight, bias, around, epilogue)
        return _through(behind, self._convolve(input, way))

    def described(
        self, dtype: torch.dtype, padding: str, compiled: bool, input: Tensor | None = None
    ) -> Convolution:
        """Return what decides how this layer is computed in a type, of an input if there is one."""
        inputs, outputs = self.in_channels, self.out_channels
        k, stride = self.kernel_size[0], self.stride[0]
        return Convolution(inputs, outputs, k, stride, padding, dtype, compiled, input)

    def _convolve(self, input: Tensor, way: str) -> Tensor:
        if way == "fourier":
            return self._fourier(input)
        output: Tensor = self._blocks(input) if way == "blocks" else super().forward(input)
        return self._laid_out(output)

    def _laid_out(self, output: Tensor) -> Tensor:
        """Changed here, so that a ReLU behind has one layout both ways."""
        if output.dtype not in self.pixel_major:
            return output
        return _from_pixel_major(_to_pixel_major(output))

    def _fourier(self, input: Tensor) -> Tensor:
        assert self.bias is not None
        x_HWNI = _to_pixel_major(input).to(autocast_dtype(input))
        return _from_pixel_major(fourier_conv2d(x_HWNI, self.weight, self.bias))

    def _centre(self, input: Tensor) -> Tensor:
        """On a map of one pixel, all of a kernel but its centre is multiplied by padding."""
        row, column = ((size - 1) // 2 for size in self.kernel_size)
        output_NO = F.linear(input.flatten(1), self.weight[:, :, row, column], self.bias)
        return output_NO[:, :, None, None]

    def _blocks(self, input: Tensor) -> Tensor:
        """Where kernels do not overlap, every pixel belongs to one of P x Q blocks."""
        height, width = self.kernel_size
        P, Q = input.shape[2] // height, input.shape[3] // width
        x_NHWI = input.permute(0, 2, 3, 1).narrow(1, 0, P * height).narrow(2, 0, Q * width)
        x_NPhQwI = x_NHWI.unflatten(1, (P, height)).unflatten(3, (Q, width))
        blocks_NPQL = x_NPhQwI.transpose(2, 3).flatten(3)
        kernels_OL = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(blocks_NPQL, kernels_OL, self.bias).permute(0, 3, 1, 2)


# Ways whose maps are channels_last and which compute what is behind.
SPATIAL = {"amx": amx_conv2d, "winograd": winograd_conv2d}


def padding_name(layer: nn.Conv2d) -> str | None:
    """Return `valid` or `same`, in whichever way a padding with zeros is written; else None."""
    if isinstance(layer.padding, str):
        return layer.padding
    if not any(layer.padding):
        return "valid"
    keeps_size = all(2 * p == k - 1 for p, k in zip(layer.padding, layer.kernel_size, strict=True))
    return "same" if keeps_size and layer.stride == (1, 1) else None


def _through(layers: Sequence[nn.Module], maps: Tensor) -> Tensor:
    """Compute a pooling, a ReLU, both in this order, or nothing."""
    if len(layers) == 2:
        # Who calls may change a pooling's output in place, and that of `relu`, which is kept for
        # its gradient, may not be; `threshold` is the same function and keeps its input.
        return F.threshold(layers[0](maps), 0.0, 0.0)
    for layer in layers:
        maps = layer(maps)
    return maps


def _to_pixel_major(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.permute(2, 3, 0, 1).contiguous()


def _from_pixel_major(x_HWNC: Tensor) -> Tensor:
    return x_HWNC.permute(2, 3, 0, 1)


class MaxPool2d(nn.MaxPool2d):
    """A max pooling of 2 x 2 that keeps a pixel-major layout."""

    compiled = True

    def forward(self, input: Tensor) -> Tensor:
        if not computes_on_cpu(input) or input.dim() != 4 or not input.numel():
            output: Tensor = super().forward(input)
            return output
        x_HWNC = input.permute(2, 3, 0, 1)
        if not x_HWNC.is_contiguous():
            return self._pool(input)
        images = len(input)
        one_image_1LHW = x_HWNC.flatten(2)[None].permute(0, 3, 1, 2)  # of N * C channels
        pooled_PQL = self._pool(one_image_1LHW)[0].permute(1, 2, 0)
        return _from_pixel_major(pooled_PQL.unflatten(2, (images, -1)))

    def _pool(self, input: Tensor) -> Tensor:
        if pooling_way(input, self.compiled) == "c":
            return pooling.max_pool_2x2(input)
        output: Tensor = super().forward(input)
        return output


class Linear(nn.Linear):
    """A dense layer by the fastest of several ways, on a CPU: AMX, oneDNN or what PyTorch asks."""

    compiled = True

    def forward(self, input: Tensor) -> Tensor:
        if not computes_on_cpu(input):
            return super().forward(input)
        weight = self.weight
        way = linear_way(input, weight, self.compiled)
        if way == "amx":
            return amx_linear(input.to(torch.bfloat16), weight, self.bias)
        if way == "onednn":
            return onednn_linear(input, weight, self.bias)
        return super().forward(input)


def onednn_linear(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
    """`F.linear` in float32."""
    output: Tensor = _OneDnnLinear.apply(x_NI, weight_OI, bias_O)
    return output


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
        ctx.save_for_backward(x_NI, weight_OI)
        return _multiply(x_NI, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x_NI, weight_OI = ctx.saved_tensors
        grad_NI = _multiply(grad_NO, weight_OI.t()) if ctx.needs_input_grad[0] else None
        return grad_NI, _multiply(grad_NO.t(), x_NI.t()), grad_NO.sum(0)


def _multiply(x_MK: Tensor, y_LK: Tensor, bias_L: Tensor | None = None) -> Tensor:
    """x @ y.T + bias."""
    assert ONEDNN_LINEAR is not None
    product_ML: Tensor = ONEDNN_LINEAR(x_MK, y_LK, bias_L, "none", [], "")
    return product_ML


EPILOGUE = (MaxPool2d, nn.ReLU)  # what a convolution computes with it, in this order
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Sequential(nn.Sequential):
    """Layers one after the other, but a pooling before the ReLU that it stands behind.

    The two commute, and a quarter is left for the ReLU to do. A convolution computes what follows
    it. The layers themselves stand as they were written, for who indexes or iterates over them; if
    one has hooks, all are computed so, and each sees its input and output.
    """

    def forward(self, input: Tensor) -> Tensor:
        layers = list(self)
        if _are_watched(layers):
            for layer in layers:
                input = layer(input)
            return input
        place = 0
        while place < len(layers):
            layer = layers[place]
            if isinstance(layer, Conv2d):
                behind = _pooling_and_relu(layers[place + 1 : place + 3])
                input = layer(input, behind) if behind else layer(input)
                place += 1 + len(behind)
                continue
            # What stands here may be the caller's, who is to see it changed by a ReLU in place.
            if type(layer) is nn.ReLU and not layer.inplace:
                pair = _pooling_and_relu(layers[place : place + 2])
                input = _through(pair, input)
                place += len(pair)
                continue
            input = layer(input)
            place += 1
        return input


def _pooling_and_relu(next_two: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the pooling and ReLU, or the one of them, that come next; the pooling first."""
    kinds = [type(layer) for layer in next_two]
    if kinds == [nn.ReLU, MaxPool2d]:
        return [next_two[1], next_two[0]]
    if kinds == [MaxPool2d, nn.ReLU]:
        return list(next_two)
    return list(next_two[:1]) if kinds and kinds[0] in EPILOGUE else []


def _are_watched(layers: Iterable[nn.Module]) -> bool:
    return _has_any_global_hook() or any(
        getattr(layer, hooks) for layer in layers for hooks in HOOKS
    )
