"""Convolutions in cuDNN's place: their shapes are recorded, and nothing is computed.

Like PyTorch's, they want maps and weights in one storage order, and copy what is not in it.
"""

import warnings
from typing import NamedTuple

import stand_in
import torch
from torch import Tensor


class Convolution(NamedTuple):
    """One launch."""

    direction: str  # forward, to the input, to the weight
    input: tuple[int, ...]
    weight: tuple[int, ...]
    autotuned: bool  # whether cuDNN would try out its algorithms if the shape were new to it
    capture: int  # the number of the one that is under way; 0: none is
    copied: tuple[str, ...]  # into the storage order that they share: "input", "weight", "gradient"


seen: list[Convolution] = []
_library = torch.library.Library("aten", "IMPL")  # what it registers goes when it does


def install() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they were there before
        _library.impl("cudnn_convolution", _forward, "CUDA")
        _library.impl("convolution_backward", _backward, "CUDA")


def _forward(
    input: Tensor,
    weight: Tensor,
    padding: list[int],
    stride: list[int],
    dilation: list[int],
    groups: int,
    benchmark: bool,
    deterministic: bool,
    allow_tf32: bool,
) -> Tensor:
    order = _storage_order(input, weight)
    copied = _put_in_order(order, input=input, weight=weight)
    _launch("forward", input, weight, order, benchmark, copied)
    sides = zip(input.shape[2:], weight.shape[2:], padding, stride, dilation, strict=True)
    size = [(side + 2 * p - d * (kernel - 1) - 1) // s + 1 for side, kernel, p, s, d in sides]
    shape = [len(input), len(weight), *size]
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=order)


def _backward(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    order = _storage_order(input, weight)
    copied = _put_in_order(order, gradient=gradient, input=input, weight=weight)
    to_input = to_weight = to_bias = None
    benchmark = torch.backends.cudnn.benchmark
    if output_mask[0]:
        _launch("to the input", input, weight, order, benchmark, copied)
        to_input = torch.empty_like(input, memory_format=order)
    if output_mask[1]:
        _launch("to the weight", input, weight, order, benchmark, copied)
        to_weight = torch.empty_like(weight, memory_format=order)
    if output_mask[2]:
        to_bias = gradient.sum((0, 2, 3))
    return to_input, to_weight, to_bias


def _storage_order(input: Tensor, weight: Tensor) -> torch.memory_format:
    """Return what PyTorch takes (cudnn_conv_suggest_memory_format): channels_last if either is."""
    orders = map(torch._prims_common.suggest_memory_format, (input, weight))
    last = torch.channels_last
    return last if last in orders else torch.contiguous_format


def _put_in_order(order: torch.memory_format, **tensors: Tensor) -> tuple[str, ...]:
    """Copy those that are stored otherwise, as PyTorch would; return their names."""
    others = {k: v for k, v in tensors.items() if not v.is_contiguous(memory_format=order)}
    for tensor in others.values():
        tensor.contiguous(memory_format=order)
    return tuple(others)


def _launch(
    direction: str,
    input: Tensor,
    weight: Tensor,
    order: torch.memory_format,
    autotuned: bool,
    copied: tuple[str, ...],
) -> None:
    sizes = tuple(input.shape), tuple(weight.shape)
    stand_in.enqueue("kernel", f"convolution {direction} {sizes} {order} {input.dtype}")
    seen.append(Convolution(direction, *sizes, autotuned, stand_in.capture(), copied))
