"""Adam: PyTorch's fused one with less around it on a CPU, and Keras's form of it."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from mnist_bench.training.optimizers.fused import (
    NO_SCALING,
    Scaling,
    fused_step,
    scaling_of,
    take_back,
)
from mnist_bench.training.optimizers.state import (
    State,
    buffers,
    count_up,
    evaluate,
    with_gradients,
    with_penalty,
)


class Adam(torch.optim.Adam):
    """PyTorch's fused Adam, with less around its kernel on a CPU.

    A step of PyTorch's sorts the weights by device, counts for each of them, copies what is in
    channels_last, and goes through hooks. Here that is done once, after a first step as PyTorch
    takes it, or the first with a state that was loaded.
    """

    rows: "Sequence[_AdamRows]" = ()  # of each group of weights
    rows_of: State | None = None

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        return _step_with_hooks(self, closure) if _has_hooks(self) else self._take_step(closure)

    # Otherwise PyTorch would put every step between its hooks, whether there are any or not, which
    # takes as long as the rest of this.
    step.hooked = True  # type: ignore[attr-defined]

    @torch.no_grad()
    def _take_step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = evaluate(closure)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for weight in weights:
            # The kernel takes both in the order of memory, whatever order that is.
            if weight.grad is not None and weight.grad.stride() != weight.stride():
                weight.grad = weight.clone().copy_(weight.grad)
        if self.rows_of is self.state and all(weight.grad is not None for weight in weights):
            for group, rows in zip(self.param_groups, self.rows, strict=True):
                rows.step(group)
        else:
            _PYTORCHS_STEP(self)
            if all(weight.device.type == "cpu" and weight in self.state for weight in weights):
                self.rows = [_AdamRows(group["params"], self.state) for group in self.param_groups]
                self.rows_of = self.state
        return loss


def _has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether anything asks to be called before or after a step."""
    own = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    return any((*own, _global_optimizer_pre_hooks, _global_optimizer_post_hooks))


# A step between PyTorch's hooks.
_step_with_hooks = torch.optim.Optimizer.profile_hook_step(
    lambda optimizer, closure: optimizer._take_step(closure)
)
# Adam's own step without the hooks, which making a `torch.optim.Adam` anywhere puts around it.
_PYTORCHS_STEP: Any = torch.optim.Adam.step
if getattr(_PYTORCHS_STEP, "hooked", False):
    _PYTORCHS_STEP = _PYTORCHS_STEP.__wrapped__


class _AdamRows:
    """What Adam keeps of the weights of a group, each as one row of memory."""

    def __init__(self, weights: list[Tensor], state: State):
        kept = [state[weight] for weight in weights]
        self.means = [_as_row(buffers["exp_avg"]) for buffers in kept]
        self.squares = [_as_row(buffers["exp_avg_sq"]) for buffers in kept]
        self.all_counts = torch.stack([one["step"] for one in kept])
        self.counts = list(self.all_counts)
        for one, count in zip(kept, self.counts, strict=True):
            one["step"] = count

    def step(self, group: dict[str, Any]) -> None:
        self.all_counts += 1
        weights, gradients = (list(map(_as_row, tensors)) for tensors in with_gradients(group))
        settings = {name: group[name] for name in ("lr", "weight_decay", "eps")}
        beta1, beta2 = group["betas"]
        torch._fused_adam_(
            *(weights, gradients, self.means, self.squares, [], self.counts),
            **settings,
            beta1=beta1,
            beta2=beta2,
            amsgrad=False,
            maximize=False,
        )


def _as_row(dense: Tensor) -> Tensor:
    """Its numbers in the order of memory."""
    return dense if dense.is_contiguous() else dense.as_strided((dense.numel(),), (1,))


class KerasAdam(Adam):
    """Adam with "epsilon hat": eps is added to the root of the *uncorrected* second moment.

    Keras (2018 to Keras 3) steps by lr · √(1-β₂ᵗ)/(1-β₁ᵗ) · m / (√v + eps), which is PyTorch's
    step with eps / √(1-β₂ᵗ) in place of eps; see Kingma & Ba 2015, the end of section 2. A CUDA
    graph cannot replay an eps that changes, so with `capturable` see `step_keras_adam`.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        eps: float,
        fused_on_device: bool = True,
        **kwargs: Any,
    ):
        super().__init__(params, eps=eps, **kwargs)
        self.fused_on_device = fused_on_device
        if self.defaults["capturable"]:
            self._step_supports_amp_scaling = fused_on_device
        for group in self.param_groups:
            group["epsilon_hat"] = eps

    def _take_step(self, closure: Callable[[], float] | None = None) -> Any:
        if self.defaults["capturable"]:
            loss = evaluate(closure)
            for group in self.param_groups:
                self._step_on_device(group)
            return loss
        for group in self.param_groups:
            taken = [self.state[p]["step"] for p in group["params"] if p in self.state]
            t = int(taken[0]) + 1 if taken else 1
            group["eps"] = group["epsilon_hat"] / math.sqrt(1 - group["betas"][1] ** t)
        return super()._take_step(closure)

    @torch.no_grad()
    def _step_on_device(self, group: dict[str, Any]) -> None:
        weights, gradients = with_gradients(group)
        if not weights:
            return
        settings = group["lr"], group["betas"], group["epsilon_hat"]
        if self.fused_on_device:
            scaling = scaling_of(self)
            fused_keras_adam(
                weights, gradients, self.state, *settings, group["weight_decay"], scaling
            )
        else:
            gradients = with_penalty(gradients, weights, group["weight_decay"])
            step_keras_adam(weights, gradients, self.state, *settings)


def fused_keras_adam(
    weights: list[Tensor],
    gradients: list[Tensor],
    state: State,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
    scaling: Scaling = NO_SCALING,
) -> None:
    """Take Adam's step in Keras's form by one kernel; see `fused_step`."""
    counts = count_up(state, weights)
    rate = _keras_rate(lr, counts[0], betas)
    names = ("exp_avg", "exp_avg_sq")
    fused_step(weights, gradients, state, names, rate, betas, eps, weight_decay, scaling)
    take_back(counts, scaling)


def step_keras_adam(
    weights: list[Tensor],
    gradients: list[Tensor],
    state: State,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Take Adam's step in Keras's form by operations that a CUDA graph can hold."""
    counts = count_up(state, weights)
    means, squares = (buffers(state, name, weights) for name in ("exp_avg", "exp_avg_sq"))
    torch._foreach_lerp_(means, gradients, 1 - betas[0])
    torch._foreach_mul_(squares, betas[1])
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])
    divisors = torch._foreach_sqrt(squares)
    torch._foreach_add_(divisors, eps)
    updates = torch._foreach_div(means, divisors)
    torch._foreach_mul_(updates, _keras_rate(lr, counts[0], betas))
    torch._foreach_sub_(weights, updates)


def _keras_rate(lr: float | Tensor, count: Tensor, betas: tuple[float, float]) -> Tensor:
    """Return lr · √(1-β₂ᵗ)/(1-β₁ᵗ) after t steps (0-d float32), computed in double."""
    t = count.double()
    rate: Tensor = lr * (1 - betas[1] ** t).sqrt() / (1 - betas[0] ** t)
    return rate.float()
