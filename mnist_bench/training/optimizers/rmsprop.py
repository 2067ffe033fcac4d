"""RMSprop by one kernel on CUDA, and as Keras 3 computes it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mnist_bench.training.optimizers.fused import fused_step, scaling_of, take_back
from mnist_bench.training.optimizers.state import (
    buffers,
    count_up,
    evaluate,
    with_gradients,
    with_penalty,
)


class FusedRMSprop(torch.optim.RMSprop):
    """`torch.optim.RMSprop` without momentum, in one kernel; its rate is a tensor.

    PyTorch's own moves 52 bytes a weight, this one 24.
    """

    # Read by GradScaler: the kernel undoes its scale, and leaves out what overflowed.
    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = evaluate(closure)
        for group in self.param_groups:
            weights, gradients = with_gradients(group)
            if not weights:
                continue
            counts, scaling = count_up(self.state, weights), scaling_of(self)
            settings = (0.0, group["alpha"]), group["eps"], group["weight_decay"]
            names = (None, "square_avg")
            fused_step(weights, gradients, self.state, names, group["lr"], *settings, scaling)
            take_back(counts, scaling)
        return loss


class Keras3RMSprop(torch.optim.Optimizer):
    """RMSprop as Keras 3 computes it: divided by √(v + eps), where PyTorch divides by √v + eps.

    The two part where √v is below √eps: the steps of this form are shorter there, in the limit
    √eps times as long. With momentum, the steps that are kept keep the learning rate they had.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float | Tensor,
        alpha: float,
        eps: float,
        momentum: float,
        weight_decay: float,
    ):
        settings = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "momentum": momentum,
            "weight_decay": weight_decay,
        }
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = evaluate(closure)
        for group in self.param_groups:
            weights, gradients = with_gradients(group)
            if weights:
                self._step(group, weights, gradients)
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = with_penalty(gradients, weights, group["weight_decay"])
        alpha, squares = group["alpha"], buffers(self.state, "square_avg", weights)
        torch._foreach_mul_(squares, alpha)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - alpha)
        divisors = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(divisors)
        updates = torch._foreach_div(gradients, divisors)
        torch._foreach_mul_(updates, group["lr"])
        if group["momentum"] > 0:
            momenta = buffers(self.state, "momentum_buffer", weights)
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, updates)
            torch._foreach_sub_(weights, momenta)
        else:
            torch._foreach_sub_(weights, updates)
