"""Adadelta by one kernel a weight, for CUDA: each number is read and written once.

PyTorch's own goes through memory in a dozen operations and moves 116 bytes a weight where 28 would
do. Triton, which compiles the kernel, comes with PyTorch for CUDA.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

from mnist_bench.training.optimizers.state import (
    buffers,
    count_up,
    evaluate,
    in_memory_order,
    with_gradients,
)

BLOCK = 1024


class Adadelta(torch.optim.Adadelta):
    """`torch.optim.Adadelta`.

    v <- rho v + (1 - rho) g², d = √(u + eps) / √(v + eps) g, u <- rho u + (1 - rho) d²,
    w <- w - lr d
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = evaluate(closure)
        for group in self.param_groups:
            weights, gradients = with_gradients(group)
            count_up(self.state, weights)
            squares, deltas = (
                buffers(self.state, name, weights) for name in ("square_avg", "acc_delta")
            )
            rho = group["rho"]
            numbers = group["lr"], rho, 1 - rho, group["eps"], group["weight_decay"]
            gradients = in_memory_order(weights, gradients)
            for tensors in zip(weights, gradients, squares, deltas, strict=True):
                count = tensors[0].numel()
                launch = _adadelta[(triton.cdiv(count, BLOCK),)]
                # Products are rounded before they are added to, as PyTorch's operations do.
                launch(*tensors, *numbers, count, BLOCK=BLOCK, enable_fp_fusion=False)
        return loss


@cache
def works(device: torch.device) -> bool:
    """Return whether Triton compiles kernels here, and warn if it does not."""
    weight = torch.nn.Parameter(torch.zeros(1, device=device))
    weight.grad = torch.zeros_like(weight)
    try:
        Adadelta([weight], lr=torch.zeros((), device=device), capturable=True).step()
    except Exception as error:  # of Triton, of the C compiler that it calls, of the driver
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"Adadelta goes on without a kernel of its own: {reason}", stacklevel=2)
        return False
    return True


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
