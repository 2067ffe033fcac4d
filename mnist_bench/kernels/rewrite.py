"""The pass that makes a built network fast: same parameters, same names, same function."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from mnist_bench.kernels import amx, build
from mnist_bench.kernels.dispatch import convolution_way
from mnist_bench.kernels.dropout import Dropout
from mnist_bench.kernels.layers import (
    POOL_SIZE,
    Conv2d,
    Linear,
    MaxPool2d,
    Sequential,
    padding_name,
)

MAP_TYPES = (torch.float32, torch.bfloat16)  # of training on a CPU


def accelerate(network: nn.Module, device: torch.device, kernels: str = "auto") -> nn.Module:
    """Rewrite a built network in place for the device that it will compute on, and return it.

    Any network: a layer that ours computes becomes ours where it stands, whatever calls it, with
    its parameters, buffers, hooks and name; within an `nn.Sequential` a pooling comes before the
    ReLU that it stands behind, and a convolution computes what follows it. Layers of other settings
    or of a class derived from PyTorch's are left alone.

    `kernels` is `auto`, `portable` (nothing that needs a compiler) or `off` (nothing is rewritten).
    """
    how = resolve(kernels, device)
    if how == "off":
        return network
    for layer in network.modules():
        kind, serves = OURS.get(type(layer), (None, None))
        if kind is not None and serves is not None and serves(layer):
            layer.__class__ = kind
        if isinstance(layer, Conv2d | MaxPool2d | Linear | Dropout):
            layer.compiled = how == "compiled"
    for layers in network.modules():
        if type(layers) is nn.Sequential:
            if device.type == "cpu":
                _choose_layouts(list(layers))
            if any(isinstance(layer, Conv2d | MaxPool2d) for layer in layers):
                layers.__class__ = Sequential
    return network


def resolve(kernels: str, device: torch.device) -> str:
    """Return what `trainer.kernels` means on a device: `compiled`, `portable` or `off`."""
    if kernels != "auto":
        return kernels
    return "compiled" if device.type == "cpu" and build.missing() is None else "portable"


def describe(how: str) -> str:
    """Return what computes, for whom reads a summary, from what `resolve` found."""
    if how != "compiled":
        return how
    return f"compiled C (AVX-512{', AMX' * amx.allowed()})"


def why_portable(kernels: str, device: torch.device) -> str | None:
    """Return what a CPU lacks for compiled kernels that were wished for; None if nothing."""
    return build.missing() if kernels == "auto" and device.type == "cpu" else None


def _convolves(layer: nn.Conv2d) -> bool:
    (height, width), (down, right) = layer.kernel_size, layer.stride
    return (
        height == width
        and down == right
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.bias is not None
        and layer.padding_mode == "zeros"
        and padding_name(layer) is not None
    )


def _pools(layer: nn.MaxPool2d) -> bool:
    sizes = (layer.kernel_size, layer.stride)
    return (
        all(size in (POOL_SIZE, (POOL_SIZE, POOL_SIZE)) for size in sizes)
        and layer.padding in (0, (0, 0))
        and layer.dilation in (1, (1, 1))
        and not (layer.return_indices or layer.ceil_mode)
    )


# What becomes what, if its settings are those of ours.
OURS: dict[type[nn.Module], tuple[type[nn.Module], Callable[..., bool]]] = {
    nn.Conv2d: (Conv2d, _convolves),
    nn.MaxPool2d: (MaxPool2d, _pools),
    nn.Linear: (Linear, lambda layer: layer.bias is not None),
    nn.Dropout: (Dropout, lambda layer: not layer.inplace),
}


def _choose_layouts(layers: Sequence[nn.Module]) -> None:
    """Have a convolution write maps pixel-major where the next one computes in that layout."""
    before: Conv2d | None = None
    for layer in layers:
        if isinstance(layer, Conv2d):
            padding = padding_name(layer) or ""
            if before is not None:
                before.pixel_major = [
                    dtype
                    for dtype in MAP_TYPES
                    if convolution_way(layer.described(dtype, padding, layer.compiled)) == "fourier"
                ]
            before = layer
        elif type(layer) not in (nn.ReLU, MaxPool2d):  # another would lose the layout
            before = None
