"""PyTorch's optimizers as configured, and the one Keras form that PyTorch lacks."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

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
    step with eps / √(1-β₂ᵗ) in place of eps; see Kingma & Ba 2015, the end of section 2. Steps that
    fp16's loss scaling skips count towards t here; in other precisions none is skipped.
    """

    def __init__(self, params: Iterable[nn.Parameter], eps: float, **kwargs: Any):
        super().__init__(params, eps=eps, **kwargs)
        for group in self.param_groups:
            group["epsilon_hat"] = eps
            group["updates"] = 0

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        for group in self.param_groups:
            group["updates"] += 1
            group["eps"] = group["epsilon_hat"] / math.sqrt(
                1 - group["betas"][1] ** group["updates"]
            )
        return super().step(closure)


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The configured optimizer, fused into one kernel where PyTorch has one."""
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    match config:
        case AdamConfig(betas=betas, eps=eps, epsilon_hat=epsilon_hat):
            adam = KerasAdam if epsilon_hat else torch.optim.Adam
            return adam(parameters, betas=betas, eps=eps, fused=True, **shared)
        case AdamWConfig(betas=betas, eps=eps):
            return torch.optim.AdamW(parameters, betas=betas, eps=eps, fused=True, **shared)
        case SGDConfig(momentum=momentum, nesterov=nesterov):
            return torch.optim.SGD(
                parameters, momentum=momentum, nesterov=nesterov, fused=True, **shared
            )
        case RMSpropConfig(alpha=alpha, eps=eps, momentum=momentum):
            return torch.optim.RMSprop(
                parameters, alpha=alpha, eps=eps, momentum=momentum, **shared
            )
        case AdadeltaConfig(rho=rho, eps=eps):
            return torch.optim.Adadelta(parameters, rho=rho, eps=eps, **shared)
    raise AssertionError(f"no optimizer for {config}")
