"""Muon: momentum made orthogonal."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mnist_bench.training.optimizers.adam import fused_keras_adam, step_keras_adam
from mnist_bench.training.optimizers.state import buffers, decay, evaluate, with_gradients


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
        fused_on_device: bool = True,
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
        self.fused_on_device = fused_on_device

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = evaluate(closure)
        matrices, adam = self.param_groups
        self._step_matrices(matrices)
        weights, gradients = with_gradients(adam)
        if weights:
            lr = adam["lr"] * adam["adam_lr_ratio"]
            decay(weights, lr, adam["weight_decay"])
            fused = self.fused_on_device and weights[0].is_cuda
            step = fused_keras_adam if fused else step_keras_adam
            step(weights, gradients, self.state, lr, adam["betas"], adam["eps"])
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        weights, gradients = with_gradients(group)
        if not weights:
            return
        decay(weights, group["lr"], group["weight_decay"])
        momenta = buffers(self.state, "momentum_buffer", weights)
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
