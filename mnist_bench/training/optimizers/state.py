"""What optimizers keep of each weight, and the tensors that they work on."""

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor

# Of an optimizer: what it keeps of each weight, by name.
State = MutableMapping[Tensor, dict[str, Any]]


def copy_state(optimizer: torch.optim.Optimizer) -> State:
    """Return an optimizer's state, its tensors copied."""
    return {
        weight: {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in kept.items()
        }
        for weight, kept in optimizer.state.items()
    }


def is_recordable(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether all that a step of it changes is on the device, and is zero at first."""
    return getattr(optimizer, "recordable", True)


@torch.no_grad()
def restore_state(optimizer: torch.optim.Optimizer, copied: State) -> None:
    """Put an optimizer's state back to a copy of it, in the same memory, which graphs read.

    What the copy has not got goes back to zeros, or goes if the optimizer may begin with others.
    """
    for weight, kept in list(optimizer.state.items()):
        before = copied.get(weight, {})
        if not before and not is_recordable(optimizer):
            del optimizer.state[weight]
            continue
        for name, value in kept.items():
            if not isinstance(value, Tensor):
                kept[name] = before.get(name, value)
            elif name in before:
                value.copy_(before[name])
            else:
                value.zero_()


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all weights this rate; one that is a tensor is filled, where a CUDA graph reads it."""
    filled: set[int] = set()
    for group in optimizer.param_groups:
        lr = group["lr"]
        if not isinstance(lr, Tensor):
            group["lr"] = rate
        elif id(lr) not in filled:  # groups share one
            lr.fill_(rate)
            filled.add(id(lr))


def in_memory_order(weights: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """The tensors with the strides of their weights: fused kernels take both as they lie."""
    return [
        tensor if tensor.stride() == weight.stride() else torch.empty_like(weight).copy_(tensor)
        for weight, tensor in zip(weights, tensors, strict=True)
    ]


def count_up(state: State, weights: list[Tensor]) -> list[Tensor]:
    """Count a step of each weight, on its device; return the counts (0-d, float32)."""
    for weight in weights:
        if "step" not in state[weight]:
            state[weight]["step"] = torch.zeros((), device=weight.device)
    counts = [state[weight]["step"] for weight in weights]
    torch._foreach_add_(counts, 1)
    return counts


def evaluate(closure: Callable[[], float] | None) -> float | None:
    """Return what a step does: the loss, if it is given a way to compute one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def buffers(state: State, name: str, weights: list[Tensor]) -> list[Tensor]:
    """Return one tensor of an optimizer's state for each weight, zeros at first."""
    for weight in weights:
        if name not in state[weight]:
            state[weight][name] = torch.zeros_like(weight)
    return [state[weight][name] for weight in weights]


def with_penalty(
    gradients: list[Tensor], weights: list[Tensor], weight_decay: float
) -> list[Tensor]:
    """Return the gradients of the loss with an L2 penalty."""
    if weight_decay == 0:
        return gradients
    return list(torch._foreach_add(gradients, weights, alpha=weight_decay))


def with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights of a group that have a gradient, and these."""
    weights = [weight for weight in group["params"] if weight.grad is not None]
    return weights, [weight.grad for weight in weights]


def decay(weights: list[Tensor], lr: float | Tensor, weight_decay: float) -> None:
    """Make weights smaller by a share of them, decoupled from the gradient."""
    if weight_decay > 0:
        torch._foreach_mul_(weights, 1 - lr * weight_decay)
