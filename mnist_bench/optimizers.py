"""PyTorch's optimizers as configured, and the two Keras forms that PyTorch lacks."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mnist_bench.config import (
    AdadeltaConfig,
    AdamConfig,
    AdamWConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
)


class KerasAdam(torch.optim.Adam):
    """Adam with "epsilon hat": eps is added to the root of the *uncorrected* second moment.

    Keras (2018 to Keras 3) steps by lr · √(1-β₂ᵗ)/(1-β₁ᵗ) · m / (√v + eps), which is PyTorch's
    step with eps / √(1-β₂ᵗ) in place of eps; see Kingma & Ba 2015, the end of section 2. A CUDA
    graph cannot replay an eps that changes, so with `capturable` the step is computed here.
    """

    def __init__(self, params: Iterable[nn.Parameter], eps: float, **kwargs: Any):
        super().__init__(params, eps=eps, **kwargs)
        for group in self.param_groups:
            group["epsilon_hat"] = eps

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        if self.defaults["capturable"]:
            loss = closure() if closure is not None else None
            for group in self.param_groups:
                self._step_on_device(group)
            return loss
        for group in self.param_groups:
            taken = [self.state[p]["step"] for p in group["params"] if p in self.state]
            t = int(taken[0]) + 1 if taken else 1
            group["eps"] = group["epsilon_hat"] / math.sqrt(1 - group["betas"][1] ** t)
        return super().step(closure)

    @torch.no_grad()
    def _step_on_device(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        gradients = [weight.grad for weight in weights]
        if not weights:
            return
        if group["weight_decay"] > 0:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros((), device=weight.device),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        steps, means, squares = (
            [self.state[weight][name] for weight in weights]
            for name in ("step", "exp_avg", "exp_avg_sq")
        )
        beta1, beta2 = group["betas"]
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        t = steps[0].double()
        length = group["lr"] * (1 - beta2**t).sqrt() / (1 - beta1**t)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_add_(divisors, group["epsilon_hat"])
        updates = torch._foreach_div(means, divisors)
        torch._foreach_mul_(updates, length.float())
        torch._foreach_sub_(weights, updates)


class Keras3RMSprop(torch.optim.Optimizer):
    """RMSprop as Keras 3 computes it: divided by √(v + eps), where PyTorch divides by √v + eps.

    The two part where √v is below √eps: the steps of this form are shorter there, in the limit
    √eps times as long. With momentum, the steps that are kept keep the learning rate they had.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(group, weights, [weight.grad for weight in weights])
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        if group["weight_decay"] > 0:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        alpha, squares = group["alpha"], self._buffers("square_avg", weights)
        torch._foreach_mul_(squares, alpha)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - alpha)
        divisors = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(divisors)
        if group["momentum"] > 0:
            momenta = self._buffers("momentum_buffer", weights)
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_addcdiv_(momenta, gradients, divisors, value=group["lr"])
            torch._foreach_sub_(weights, momenta)
        else:
            torch._foreach_addcdiv_(weights, gradients, divisors, value=-group["lr"])

    def _buffers(self, name: str, weights: list[Tensor]) -> list[Tensor]:
        """One tensor of the optimizer's state for each weight, zeros at first."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], capturable: bool = False
) -> torch.optim.Optimizer:
    """The configured optimizer, fused into one kernel where PyTorch has one.

    With `capturable`, for CUDA only, its steps can become part of a CUDA graph, and its learning
    rate is a tensor that the graph reads; Keras 3's RMSprop leaves that out.
    """
    parameters = list(parameters)
    lr: float | Tensor = config.lr
    if capturable:
        lr = torch.tensor(config.lr, device=parameters[0].device)
    shared: dict[str, Any] = {"lr": lr, "weight_decay": config.weight_decay}
    on_device = {"capturable": capturable}
    match config:
        case AdamConfig(betas=betas, eps=eps, epsilon_hat=epsilon_hat):
            adam = KerasAdam if epsilon_hat else torch.optim.Adam
            return adam(parameters, betas=betas, eps=eps, fused=True, **shared, **on_device)
        case AdamWConfig(betas=betas, eps=eps):
            return torch.optim.AdamW(
                parameters, betas=betas, eps=eps, fused=True, **shared, **on_device
            )
        case SGDConfig(momentum=momentum, nesterov=nesterov):
            return torch.optim.SGD(
                parameters, momentum=momentum, nesterov=nesterov, fused=True, **shared
            )
        case RMSpropConfig(alpha=alpha, eps=eps, momentum=momentum, eps_inside_sqrt=True):
            shared["lr"] = config.lr
            return Keras3RMSprop(parameters, alpha=alpha, eps=eps, momentum=momentum, **shared)
        case RMSpropConfig(alpha=alpha, eps=eps, momentum=momentum):
            return torch.optim.RMSprop(
                parameters, alpha=alpha, eps=eps, momentum=momentum, **shared, **on_device
            )
        case AdadeltaConfig(rho=rho, eps=eps):
            return torch.optim.Adadelta(parameters, rho=rho, eps=eps, **shared, **on_device)
    raise AssertionError(f"no optimizer for {config}")
