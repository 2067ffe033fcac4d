"""PyTorch's fused kernel for Adam, as the step of other optimizers on CUDA.

It takes all weights at once and reads and writes each number once. Where its corrections of the
means are 1 it computes w <- w - lr m / (√v + eps): Keras's form of Adam, whose corrections are a
factor on the rate, and RMSprop, whose mean m is the gradient itself.
"""

import torch
from torch import Tensor

from mnist_bench.training.optimizers.state import State, buffers, in_memory_order

# So many steps that the corrections, 1 - βᵗ, are 1.
FOREVER = 1e9

# What a GradScaler leaves for kernels that undo its scale themselves: `grad_scale`, which gradients
# are divided by, and `found_inf`, 1 if a step is to be left out. 0-d, float32.
Scaling = dict[str, Tensor | None]
NO_SCALING: Scaling = {"grad_scale": None, "found_inf": None}


def fused_step(
    weights: list[Tensor],
    gradients: list[Tensor],
    state: State,
    names: tuple[str | None, str],
    lr: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    scaling: Scaling,
) -> None:
    """m <- β₁ m + (1 - β₁) g, v <- β₂ v + (1 - β₂) g², w <- w - lr m / (√v + eps), in place.

    `names` are those of m and v in the optimizer's state. Without one for m, β₁ has to be 0 and the
    gradients are m: they are read and written as themselves. `weight_decay` is an L2 penalty. All
    tensors are float32 and on one device; lr has no dimension.
    """
    gradients = in_memory_order(weights, gradients)
    mean, square = names
    forever = torch.full((), FOREVER, device=weights[0].device)
    torch._fused_adam_(
        weights,
        gradients,
        gradients if mean is None else buffers(state, mean, weights),
        buffers(state, square, weights),
        [],
        [forever] * len(weights),
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
        **scaling,
    )


def scaling_of(optimizer: torch.optim.Optimizer) -> Scaling:
    """Return what a GradScaler has left with an optimizer for this step."""
    return {name: getattr(optimizer, name, None) for name in NO_SCALING}


def take_back(counts: list[Tensor], scaling: Scaling) -> None:
    """Count a step that was left out no more."""
    found_inf = scaling["found_inf"]
    if found_inf is not None:
        torch._foreach_sub_(counts, [found_inf] * len(counts))
