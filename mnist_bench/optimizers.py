"""PyTorch's optimizers as configured, and those that PyTorch lacks: two Keras forms, and Muon."""

import math
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mnist_bench.config import (
    AdadeltaConfig,
    AdamConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
)

# Of an optimizer: what it keeps of each weight, by name.
State = MutableMapping[Tensor, dict[str, Any]]


class Adam(torch.optim.Adam):
    """PyTorch's fused Adam, with less around its kernel on a CPU.

    A step of PyTorch's sorts the weights by device, counts for each of them, copies what is in
    channels_last, and goes through hooks. Here that is done once, after a first step as PyTorch
    takes it, or the first with a state that was loaded.
    """

    rows: "Sequence[_AdamRows]" = ()  # of each group of weights
    rows_of: State | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = _evaluate(closure)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for weight in weights:
            # The kernel takes both in the order of memory, whatever order that is.
            if weight.grad is not None and weight.grad.stride() != weight.stride():
                weight.grad = weight.clone().copy_(weight.grad)
        if self.rows_of is self.state and all(weight.grad is not None for weight in weights):
            for group, rows in zip(self.param_groups, self.rows, strict=True):
                rows.step(group)
        else:
            super().step()
            if all(weight.device.type == "cpu" and weight in self.state for weight in weights):
                self.rows = [_AdamRows(group["params"], self.state) for group in self.param_groups]
                self.rows_of = self.state
        return loss

    # Otherwise PyTorch would put a step between its hooks, which take as long as the rest of this.
    step.hooked = True  # type: ignore[attr-defined]


class _AdamRows:
    """What Adam keeps of the weights of a group, each as one row of memory."""

    def __init__(self, weights: list[Tensor], state: State):
        kept = [state[weight] for weight in weights]
        self.means = [_as_row(buffers["exp_avg"]) for buffers in kept]
        self.squares = [_as_row(buffers["exp_avg_sq"]) for buffers in kept]
        self.all_counts = torch.stack([buffers["step"] for buffers in kept])
        self.counts = list(self.all_counts)
        for buffers, count in zip(kept, self.counts, strict=True):
            buffers["step"] = count

    def step(self, group: dict[str, Any]) -> None:
        self.all_counts += 1
        weights, gradients = (list(map(_as_row, tensors)) for tensors in _with_gradients(group))
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
    graph cannot replay an eps that changes, so with `capturable` the step is computed here.
    """

    def __init__(self, params: Iterable[nn.Parameter], eps: float, **kwargs: Any):
        super().__init__(params, eps=eps, **kwargs)
        for group in self.param_groups:
            group["epsilon_hat"] = eps

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        if self.defaults["capturable"]:
            loss = _evaluate(closure)
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
        weights, gradients = _with_gradients(group)
        if weights:
            gradients = _with_penalty(gradients, weights, group["weight_decay"])
            lr, betas, eps = group["lr"], group["betas"], group["epsilon_hat"]
            step_keras_adam(weights, gradients, self.state, lr, betas, eps)


def step_keras_adam(
    weights: list[Tensor],
    gradients: list[Tensor],
    state: State,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Adam's step in Keras's form, by operations that a CUDA graph can hold."""
    for weight in weights:
        if "step" not in state[weight]:
            state[weight]["step"] = torch.zeros((), device=weight.device)
    steps = [state[weight]["step"] for weight in weights]
    means, squares = (_buffers(state, name, weights) for name in ("exp_avg", "exp_avg_sq"))
    torch._foreach_add_(steps, 1)
    torch._foreach_lerp_(means, gradients, 1 - betas[0])
    torch._foreach_mul_(squares, betas[1])
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])
    t = steps[0].double()
    length = lr * (1 - betas[1] ** t).sqrt() / (1 - betas[0] ** t)
    divisors = torch._foreach_sqrt(squares)
    torch._foreach_add_(divisors, eps)
    updates = torch._foreach_div(means, divisors)
    torch._foreach_mul_(updates, length.float())
    torch._foreach_sub_(weights, updates)


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for kernels and hidden dense layers; Adam for all else.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. A kernel (O, I, k, k) is
    taken as a matrix of O rows. The last matrix among the parameters is the output layer's, which
    goes with the biases to Adam, in Keras's form, at `adam_lr_ratio` times the rate.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float | Tensor,
        momentum: float,
        iterations: int,
        weight_decay: float,
        adam_lr_ratio: float,
        betas: tuple[float, float],
        eps: float,
    ):
        params = list(params)
        matrices = [p for p in params if p.ndim > 1][:-1]
        chosen = {id(p) for p in matrices}
        others = [p for p in params if id(p) not in chosen]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "momentum": momentum, "iterations": iterations},
            {"params": others, "adam_lr_ratio": adam_lr_ratio, "betas": betas, "eps": eps},
        ]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = _evaluate(closure)
        matrices, adam = self.param_groups
        self._step_matrices(matrices)
        weights, gradients = _with_gradients(adam)
        if weights:
            lr = adam["lr"] * adam["adam_lr_ratio"]
            _decay(weights, lr, adam["weight_decay"])
            step_keras_adam(weights, gradients, self.state, lr, adam["betas"], adam["eps"])
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        weights, gradients = _with_gradients(group)
        if not weights:
            return
        _decay(weights, group["lr"], group["weight_decay"])
        momenta = _buffers(self.state, "momentum_buffer", weights)
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        for weight, update in zip(weights, ahead, strict=True):
            step = orthogonalise(update.flatten(1), group["iterations"]).view_as(weight)
            rows, columns = len(weight), weight[0].numel()
            weight.sub_(step * group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrix: Tensor, iterations: int) -> Tensor:
    """The matrix with its singular values brought near 1: five iterations bring them to 0.7 to 1.2.

    Newton and Schulz's iteration x <- (a + b g + c g²) x, g = x x', with Jordan's coefficients. Its
    factors are polynomials of the first g, so that they commute, and g follows from them: the long
    side of the matrix is met twice, however many iterations there are.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    gram = x @ x.T
    square = gram.trace().clamp(min=1e-14)  # of x's norm
    gram /= square
    product: Tensor | None = None
    for i in range(iterations):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if i + 1 < iterations:
            gram = factor @ gram @ factor
    assert product is not None
    x = (product / square.sqrt()) @ x
    return x.T if tall else x


def _evaluate(closure: Callable[[], float] | None) -> float | None:
    """What a step returns: the loss, if it is given a way to compute one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _buffers(state: State, name: str, weights: list[Tensor]) -> list[Tensor]:
    """One tensor of an optimizer's state for each weight, zeros at first."""
    for weight in weights:
        if name not in state[weight]:
            state[weight][name] = torch.zeros_like(weight)
    return [state[weight][name] for weight in weights]


def _with_penalty(
    gradients: list[Tensor], weights: list[Tensor], weight_decay: float
) -> list[Tensor]:
    """The gradients of the loss with an L2 penalty."""
    if weight_decay == 0:
        return gradients
    return list(torch._foreach_add(gradients, weights, alpha=weight_decay))


def _with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    weights = [weight for weight in group["params"] if weight.grad is not None]
    return weights, [weight.grad for weight in weights]


def _decay(weights: list[Tensor], lr: float | Tensor, weight_decay: float) -> None:
    """Decoupled from the gradient."""
    if weight_decay > 0:
        torch._foreach_mul_(weights, 1 - lr * weight_decay)


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
        loss = _evaluate(closure)
        for group in self.param_groups:
            weights, gradients = _with_gradients(group)
            if weights:
                self._step(group, weights, gradients)
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = _with_penalty(gradients, weights, group["weight_decay"])
        alpha, squares = group["alpha"], _buffers(self.state, "square_avg", weights)
        torch._foreach_mul_(squares, alpha)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - alpha)
        divisors = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(divisors)
        if group["momentum"] > 0:
            momenta = _buffers(self.state, "momentum_buffer", weights)
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_addcdiv_(momenta, gradients, divisors, value=group["lr"])
            torch._foreach_sub_(weights, momenta)
        else:
            torch._foreach_addcdiv_(weights, gradients, divisors, value=-group["lr"])


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
            adam = KerasAdam if epsilon_hat else Adam
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
        case MuonConfig(momentum=momentum, iterations=iterations, adam_lr_ratio=ratio):
            return Muon(
                parameters,
                momentum=momentum,
                iterations=iterations,
                adam_lr_ratio=ratio,
                betas=config.betas,
                eps=config.eps,
                **shared,
            )
    raise AssertionError(f"no optimizer for {config}")
