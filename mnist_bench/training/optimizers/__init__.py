"""PyTorch's optimizers as configured, and what it lacks: two Keras forms, Muon, fused steps."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mnist_bench.config.parts import Part
from mnist_bench.config.ranges import is_number
from mnist_bench.config.schema import (
    AdadeltaConfig,
    AdamConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
)
from mnist_bench.errors import ConfigError
from mnist_bench.training.optimizers.adam import Adam, KerasAdam
from mnist_bench.training.optimizers.muon import Muon
from mnist_bench.training.optimizers.rmsprop import FusedRMSprop, Keras3RMSprop


def learning_rate(config: OptimizerConfig | Part) -> float:
    """Return the rate that a schedule multiplies.

    Raises:
        ConfigError: an optimizer of the user's own has none, neither configured nor by default.
    """
    if not isinstance(config, Part):
        return config.lr
    lr = config.arguments.get("lr")
    if lr is None:
        takes = inspect.signature(config.find(torch.optim.Optimizer)).parameters
        lr = takes["lr"].default if "lr" in takes else None
    if not is_number(lr):
        raise ConfigError(
            f"optimizer.lr={lr} is not a number: give the learning rate of {config.target} as lr."
        )
    assert lr is not None
    return float(lr)


def build_optimizer(
    config: OptimizerConfig | Part,
    parameters: Iterable[nn.Parameter],
    fused_on_device: bool = True,
) -> torch.optim.Optimizer:
    """Return the configured optimizer, fused into one kernel where PyTorch has one.

    On CUDA the learning rate of ours is a tensor, their steps can become part of a CUDA graph, and
    with `fused_on_device` kernels of ours compute where PyTorch has none.

    Raises:
        ConfigError: a class of the user's own is not an optimizer that can be built or stepped.
    """
    parameters = list(parameters)
    if isinstance(config, Part):
        return _build_own(config, parameters)
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


def _build_own(config: Part, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    closure = inspect.signature(config.find(torch.optim.Optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"optimizer._target_={config.target} steps by a closure that computes the loss again, "
            f"which training here does not have: choose an optimizer whose step() needs none."
        )
    lr = learning_rate(config)
    optimizer = config.build(torch.optim.Optimizer, {"params": parameters}, {"lr": lr})
    # What it keeps on the host, as many do, a CUDA graph would keep for ever as it was recorded.
    optimizer.recordable = False  # type: ignore[attr-defined]
    return optimizer


def _find_adadelta(device: torch.device) -> type[torch.optim.Adadelta]:
    """Return the one with a kernel of its own, where Triton is there and works."""
    try:
        from mnist_bench.training.optimizers import adadelta
    except ImportError:
        return torch.optim.Adadelta
    return adadelta.Adadelta if adadelta.works(device) else torch.optim.Adadelta
