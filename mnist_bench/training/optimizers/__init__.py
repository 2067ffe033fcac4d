"""PyTorch's optimizers as configured, and what it lacks: two Keras forms, Muon, fused steps."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mnist_bench.config.schema import (
    AdadeltaConfig,
    AdamConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
)
from mnist_bench.training.optimizers.adam import Adam, KerasAdam
from mnist_bench.training.optimizers.muon import Muon
from mnist_bench.training.optimizers.rmsprop import FusedRMSprop, Keras3RMSprop


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], fused_on_device: bool = True
) -> torch.optim.Optimizer:
    """Return the configured optimizer, fused into one kernel where PyTorch has one.

    On CUDA its learning rate is a tensor, its steps can become part of a CUDA graph, and with
    `fused_on_device` kernels of ours compute where PyTorch has none.
    """
    parameters = list(parameters)
    device = parameters[0].device
    on_cuda = device.type == "cuda"
    lr: float | Tensor = torch.tensor(config.lr, device=device) if on_cuda else config.lr
    shared: dict[str, Any] = {"lr": lr, "weight_decay": config.weight_decay}
    on_device = {"capturable": on_cuda}
    fuses = on_cuda and fused_on_device
    match config:
        case AdamConfig(betas=betas, eps=eps, epsilon_hat=True):
            shared |= {"fused": True, "fused_on_device": fused_on_device}
            return KerasAdam(parameters, betas=betas, eps=eps, **shared, **on_device)
        case AdamConfig(betas=betas, eps=eps):
            return Adam(parameters, betas=betas, eps=eps, fused=True, **shared, **on_device)
        case AdamWConfig(betas=betas, eps=eps):
            return torch.optim.AdamW(
                parameters, betas=betas, eps=eps, fused=True, **shared, **on_device
            )
        case SGDConfig(momentum=momentum, nesterov=nesterov):
            return torch.optim.SGD(
                parameters, momentum=momentum, nesterov=nesterov, fused=True, **shared
            )
        case RMSpropConfig(alpha=alpha, eps=eps, momentum=momentum, eps_inside_sqrt=True):
            return Keras3RMSprop(parameters, alpha=alpha, eps=eps, momentum=momentum, **shared)
        case RMSpropConfig(alpha=alpha, eps=eps, momentum=momentum):
            rmsprop = FusedRMSprop if fuses and momentum == 0 else torch.optim.RMSprop
            return rmsprop(
                parameters, alpha=alpha, eps=eps, momentum=momentum, **shared, **on_device
            )
        case AdadeltaConfig(rho=rho, eps=eps):
            adadelta = _find_adadelta(device) if fuses else torch.optim.Adadelta
            return adadelta(parameters, rho=rho, eps=eps, **shared, **on_device)
        case MuonConfig(momentum=momentum, iterations=iterations, adam_lr_ratio=ratio):
            return Muon(
                parameters,
                momentum=momentum,
                iterations=iterations,
                adam_lr_ratio=ratio,
                betas=config.betas,
                eps=config.eps,
                fused_on_device=fused_on_device,
                **shared,
            )
    raise AssertionError(f"no optimizer for {config}")


def _find_adadelta(device: torch.device) -> type[torch.optim.Adadelta]:
    """Return the one with a kernel of its own, where Triton is there and works."""
    try:
        from mnist_bench.training.optimizers import adadelta
    except ImportError:
        return torch.optim.Adadelta
    return adadelta.Adadelta if adadelta.works(device) else torch.optim.Adadelta
