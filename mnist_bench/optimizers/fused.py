"""RMSprop and Adadelta by one kernel a weight, for CUDA: each number is read and written once.

PyTorch has such kernels for Adam, AdamW and SGD. Its RMSprop moves 52 bytes a weight where 20 would
do, its Adadelta 116 where 28 would. Triton, which compiles them, comes with PyTorch for CUDA.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mnist_bench.optimizers.state import (
    buffers,
    count_up,
    evaluate,
    in_memory_order,
    with_gradients,
)

BLOCK = 1024


class RMSprop(torch.optim.RMSprop):
    """`torch.optim.RMSprop` without momentum.

    v <- alpha v + (1 - alpha) g², w <- w - lr g / (√v + eps)
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = evaluate(closure)
        for group in self.param_groups:
            alpha = group["alpha"]
            numbers = group["lr"], alpha, 1 - alpha, group["eps"], group["weight_decay"]
            _step_each(_rmsprop, group, self.state, ["square_avg"], *numbers)
        return loss


class Adadelta(torch.optim.Adadelta):
    """`torch.optim.Adadelta`.

    v <- rho v + (1 - rho) g², d = √(u + eps) / √(v + eps) g, u <- rho u + (1 - rho) d²,
    w <- w - lr d
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = evaluate(closure)
        for group in self.param_groups:
            rho = group["rho"]
            numbers = group["lr"], rho, 1 - rho, group["eps"], group["weight_decay"]
            _step_each(_adadelta, group, self.state, ["square_avg", "acc_delta"], *numbers)
        return loss


def _step_each(
    kernel: Any, group: dict[str, Any], state: Any, names: list[str], *numbers: Tensor | float
) -> None:
    """Launch a kernel on each weight of a group, its gradient and its state of these names."""
    weights, gradients = with_gradients(group)
    count_up(state, weights)
    kept = [buffers(state, name, weights) for name in names]
    for tensors in zip(weights, in_memory_order(weights, gradients), *kept, strict=True):
        count = tensors[0].numel()
        kernel[(triton.cdiv(count, BLOCK),)](*tensors, *numbers, count, BLOCK=BLOCK)


@cache
def works(device: torch.device) -> bool:
    """Return whether Triton compiles kernels here, and warn if it does not."""
    weight = torch.nn.Parameter(torch.zeros(1, device=device))
    weight.grad = torch.zeros_like(weight)
    try:
        RMSprop([weight], lr=torch.zeros((), device=device), capturable=True).step()
    except Exception as error:  # of Triton, of the C compiler that it calls, of the driver
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"Optimizers go on without kernels of ours: {reason}", stacklevel=2)
        return False
    return True


@triton.jit
def _rmsprop(w_, g_, v_, lr, alpha, one_less_alpha, eps, weight_decay, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    w = tl.load(w_ + at, inside)
    g = tl.load(g_ + at, inside) + weight_decay * w
    v = alpha * tl.load(v_ + at, inside) + one_less_alpha * g * g
    tl.store(v_ + at, v, inside)
    tl.store(w_ + at, w - tl.load(lr) * g / (tl.sqrt_rn(v) + eps), inside)


@triton.jit
def _adadelta(w_, g_, v_, u_, lr, rho, one_less_rho, eps, weight_decay, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    w = tl.load(w_ + at, inside)
    g = tl.load(g_ + at, inside) + weight_decay * w
    v = rho * tl.load(v_ + at, inside) + one_less_rho * g * g
    u = tl.load(u_ + at, inside)
    d = tl.sqrt_rn(u + eps) / tl.sqrt_rn(v + eps) * g
    tl.store(v_ + at, v, inside)
    tl.store(u_ + at, rho * u + one_less_rho * d * d, inside)
    tl.store(w_ + at, w - tl.load(lr) * d, inside)
