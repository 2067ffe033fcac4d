"""PyTorch's layers, computed another way where that is faster on a CPU.

`benchmarks/results/` has what each way costs. N images, C channels (I in, O out), H rows, W
columns. Tensors are (N, C, H, W) as in PyTorch, but some are *pixel-major*: (H, W, N, C) in memory,
where a pixel of the whole batch is one row.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_bench.kernels import pooling
from mnist_bench.kernels.amx import amx_conv2d, amx_serves
from mnist_bench.kernels.amx_linear import amx_linear, amx_linear_serves
from mnist_bench.kernels.direct import direct_conv2d, direct_serves
from mnist_bench.kernels.epilogue import Epilogue
from mnist_bench.kernels.fourier import fourier_conv2d
from mnist_bench.kernels.winograd import winograd_conv2d, winograd_serves

POOL_SIZE = 2
# What wins where: benchmarks/results/layers-*.md. Of more 3 x 3 kernels, oneDNN does in bf16.
WINOGRAD_BF16_KERNELS = 64 * 128
FOURIER_KERNEL_SIZE = 5
FOURIER_CHANNELS = 32
# oneDNN's product of matrices as PyTorch's compiler calls it; a PyTorch without oneDNN has none.
ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
# PyTorch asks MKL, which is faster on the processors of its maker.
MKL_IS_FASTER = "Intel" in str(torch.cpu.get_capabilities().get("cpu_name"))


class Conv2d(nn.Conv2d):
    """A convolution by the fastest of several ways, on a CPU: the direct sum, the matrix unit AMX,
    Winograd's products, the frequency domain, one product of matrices, PyTorch's own.

    The function is the same up to rounding. `pixel_major` are the types of maps in which the next
    layer wants its input in that layout.
    """

    # Whether maps of one pixel are multiplied by the kernels' centres; a switch for measurements.
    centre_tap = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: str,
        pixel_major: Collection[torch.dtype] = (),
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.pixel_major = pixel_major

    def forward(self, input: Tensor, behind: Sequence[nn.Module] = ()) -> Tensor:
        """`behind` is computed too: nothing, a `MaxPool2d`, a ReLU or both in this order."""
        if self.centre_tap and self.padding == "same" and input.shape[2:] == (1, 1):
            return _through(behind, self._centre(input))
        if not computes_on_cpu(input):
            return _through(behind, super().forward(input))
        assert self.bias is not None and isinstance(self.padding, str)
        k, stride, dtype = self.kernel_size[0], self.stride[0], _autocast_dtype(input)
        epilogue = Epilogue(*(any(isinstance(x, kind) for x in behind) for kind in EPILOGUE))
        if direct_serves(input, self.weight, dtype, stride, self.padding):
            how = dtype, stride, self.padding, epilogue
            return self._laid_out(direct_conv2d(input, self.weight, self.bias, *how))
        layer = self.in_channels, self.out_channels, k, stride, dtype
        if self.weight.dtype is torch.float32 and (self.padding == "valid" or k % 2 == 1):
            padding = k // 2 if self.padding == "same" else 0
            tensors = input.to(dtype), self.weight, self.bias
            if prefers_amx(*layer):
                return amx_conv2d(*tensors, padding, epilogue)
            if prefers_winograd(*layer):
                return winograd_conv2d(*tensors, padding, epilogue)
        return _through(behind, self._convolve(input, prefers_fourier(*layer)))

    def _convolve(self, input: Tensor, by_fourier: bool) -> Tensor:
        if self.padding == "same":
            return super().forward(input)
        if by_fourier:
            return self._fourier(input)
        apart = self.stride == self.kernel_size
        output: Tensor = self._blocks(input) if apart else super().forward(input)
        return self._laid_out(output)

    def _laid_out(self, output: Tensor) -> Tensor:
        """Changed here, so that a ReLU behind has one layout both ways."""
        if output.dtype not in self.pixel_major:
            return output
        return _from_pixel_major(_to_pixel_major(output))

    def _fourier(self, input: Tensor) -> Tensor:
        assert self.bias is not None
        x_HWNI = _to_pixel_major(input).to(_autocast_dtype(input))
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


def _through(layers: Iterable[nn.Module], maps: Tensor) -> Tensor:
    for layer in layers:
        maps = layer(maps)
    return maps


def _autocast_dtype(x: Tensor) -> torch.dtype:
    """The type in which a convolution of `x` is computed."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _to_pixel_major(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.permute(2, 3, 0, 1).contiguous()


def _from_pixel_major(x_HWNC: Tensor) -> Tensor:
    return x_HWNC.permute(2, 3, 0, 1)


class MaxPool2d(nn.MaxPool2d):
    """A max pooling of 2 x 2 that keeps a pixel-major layout."""

    def __init__(self) -> None:
        super().__init__(POOL_SIZE)

    def forward(self, input: Tensor) -> Tensor:
        if not computes_on_cpu(input):
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
        if pooling.serves(input):
            return pooling.max_pool_2x2(input)
        output: Tensor = super().forward(input)
        return output


EPILOGUE = (MaxPool2d, nn.ReLU)  # what a convolution computes with it, in this order
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Features(nn.Sequential):
    """Layers one after the other. On a CPU a convolution computes the pooling and ReLU behind it.

    If a layer has hooks, all are computed one by one, so that each sees its input and output.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not computes_on_cpu(input) or self._is_watched():
            output: Tensor = super().forward(input)
            return output
        maps, layers = input, deque(self)
        while layers:
            layer, behind = layers.popleft(), []
            for kind in EPILOGUE if isinstance(layer, Conv2d) else ():
                if layers and isinstance(layers[0], kind):
                    behind.append(layers.popleft())
            maps = layer(maps, behind) if behind else layer(maps)
        return maps

    def _is_watched(self) -> bool:
        return any(getattr(layer, hooks) for layer in self for hooks in HOOKS)


class Linear(nn.Linear):
    """A dense layer by the fastest of several ways, on a CPU: AMX, oneDNN or what PyTorch asks."""

    def forward(self, input: Tensor) -> Tensor:
        if not computes_on_cpu(input):
            return super().forward(input)
        dtype, tensors = _autocast_dtype(input), (self.weight, self.bias)
        if dtype is torch.bfloat16 and amx_linear_serves(input, self.weight):
            return amx_linear(input.to(dtype), *tensors)
        if dtype is torch.float32 and ONEDNN_LINEAR is not None and not MKL_IS_FASTER:
            return onednn_linear(input, *tensors)
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
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x_NI, weight_OI = ctx.saved_tensors
        grad_NI = _multiply(grad_NO, weight_OI.t()) if ctx.needs_input_grad[0] else None
        return grad_NI, _multiply(grad_NO.t(), x_NI.t()), grad_NO.sum(0)


def _multiply(x_MK: Tensor, y_LK: Tensor, bias_L: Tensor | None = None) -> Tensor:
    """x @ y.T + bias."""
    assert ONEDNN_LINEAR is not None
    product_ML: Tensor = ONEDNN_LINEAR(x_MK, y_LK, bias_L, "none", [], "")
    return product_ML


# Whether a layer is computed in one of these ways, from maps of this type.


def prefers_amx(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, dtype: torch.dtype
) -> bool:
    return stride == 1 and dtype is torch.bfloat16 and amx_serves(in_channels, out_channels)


def prefers_winograd(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, dtype: torch.dtype
) -> bool:
    kernels = in_channels * out_channels
    return (
        stride == 1
        and (dtype is torch.float32 or kernel_size > 3 or kernels <= WINOGRAD_BF16_KERNELS)
        and winograd_serves(in_channels, out_channels, kernel_size, dtype)
    )


def prefers_fourier(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, dtype: torch.dtype
) -> bool:
    if in_channels < FOURIER_CHANNELS or kernel_size < FOURIER_KERNEL_SIZE or stride > 1:
        return False
    layer = in_channels, out_channels, kernel_size, stride, dtype
    return not (prefers_amx(*layer) or prefers_winograd(*layer))


def computes_on_cpu(input: Tensor) -> bool:
    """In eager mode, that is: a compiler has its own ways."""
    return input.device.type == "cpu" and not torch.compiler.is_compiling()
