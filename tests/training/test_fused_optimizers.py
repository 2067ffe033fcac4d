"""The fused steps of CUDA, computed here on the CPU: PyTorch's own steps, to rounding."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mnist_bench.training.optimizers.adam import KerasAdam
from mnist_bench.training.optimizers.rmsprop import FusedRMSprop


@pytest.mark.parametrize("fused", [True, False])
def test_keras_adam_on_the_device_is_keras_adam(fused: bool) -> None:
    """The two forms that a CUDA graph can hold, here on the CPU, against the one that it cannot."""
    settings = {"eps": 1e-7, "betas": (0.9, 0.999), "weight_decay": 0.01, "fused": True}
    found = []
    for on_device in ({}, {"capturable": True, "fused_on_device": fused}):
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(3))]
        optimizer = KerasAdam(weights, lr=torch.tensor(1e-3), **settings, **on_device)
        for _ in range(30):
            for weight in weights:
                weight.grad = torch.randn_like(weight) * 1e-4
            optimizer.step()
        found.append([weight.detach() for weight in weights])
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "build",
    [
        partial(KerasAdam, eps=1e-7, lr=torch.tensor(1e-2), fused=True, capturable=True),
        partial(FusedRMSprop, lr=torch.tensor(1e-2), capturable=True),
    ],
    ids=["keras_adam", "rmsprop"],
)
def test_fused_steps_undo_a_scale_and_leave_out_what_overflowed(
    build: Callable[..., torch.optim.Optimizer],
) -> None:
    """As a GradScaler asks of them, by tensors that no host looks at."""
    rows, scale = torch.randn(9, 7, generator=torch.Generator().manual_seed(0)), 1024.0
    overflowed = torch.full((7,), torch.inf)
    plain = [(row.clone(), 1.0) for row in rows]
    scaled = [(row * scale, scale) for row in rows]
    scaled.insert(3, (overflowed, scale))
    found = []
    for steps in (plain, scaled):
        weight = nn.Parameter(torch.linspace(-1, 1, 7))
        optimizer = build([weight])
        for gradient, by in steps:
            weight.grad = gradient
            optimizer.grad_scale = torch.tensor(by)
            optimizer.found_inf = torch.tensor(float(gradient is overflowed))
            optimizer.step()
        found.append(weight.detach())
        assert optimizer.state[weight]["step"] == 9
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)


def fused_problem() -> tuple[list[Tensor], list[list[Tensor]]]:
    """Weights, and gradients of some steps.

    One weight fills several blocks of a kernel, and one lies in memory in another order than the
    gradient that it is given.
    """
    torch.manual_seed(0)
    weights = [torch.randn(3000), torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)]
    return weights, [[torch.randn(3000), torch.randn(8, 4, 3, 3)] for _ in range(5)]


def assert_steps_of(
    expected: Callable[..., torch.optim.Optimizer],
    found: Sequence[Tensor],
    state: dict[int, dict[str, Tensor]],
) -> None:
    """The weights and the state after these steps are those of a class of PyTorch's in float64."""
    weights, gradients = fused_problem()
    parameters = [nn.Parameter(w.double()) for w in weights]
    optimizer = expected(parameters, lr=0.01, eps=1e-7, weight_decay=0.01)
    for step in gradients:
        for weight, gradient in zip(parameters, step, strict=True):
            weight.grad = gradient.double()
        optimizer.step()
    for ours, theirs in zip(found, parameters, strict=True):
        torch.testing.assert_close(ours, theirs.detach().float(), rtol=1e-5, atol=1e-6)
    exact = optimizer.state_dict()["state"]
    for ours, theirs in zip(state.values(), exact.values(), strict=True):
        assert ours.keys() == theirs.keys() and ours["step"] == 5
        for key in ours.keys() - {"step"}:
            torch.testing.assert_close(ours[key], theirs[key].float(), rtol=1e-5, atol=1e-7)


def test_fused_rmsprop_is_pytorchs() -> None:
    weights, gradients = fused_problem()
    parameters = [nn.Parameter(w) for w in weights]
    settings = {"alpha": 0.9, "eps": 1e-7, "weight_decay": 0.01}
    optimizer = FusedRMSprop(parameters, lr=torch.tensor(0.01), capturable=True, **settings)
    for step in gradients:
        for weight, gradient in zip(parameters, step, strict=True):
            weight.grad = gradient
        optimizer.step()
    found = [p.detach() for p in parameters]
    assert_steps_of(partial(torch.optim.RMSprop, alpha=0.9), found, optimizer.state_dict()["state"])


FUSED_ADADELTA = """
import sys, torch
from mnist_bench.training.optimizers.adadelta import Adadelta
weights, steps = torch.load(sys.argv[1])
weights = [torch.nn.Parameter(w) for w in weights]
settings = {"rho": 0.95, "eps": 1e-7, "weight_decay": 0.01}
optimizer = Adadelta(weights, lr=torch.tensor(0.01), capturable=True, **settings)
for gradients in steps:
    for weight, gradient in zip(weights, gradients):
        weight.grad = gradient
    optimizer.step()
torch.save(([w.detach() for w in weights], optimizer.state_dict()["state"]), sys.argv[1])
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="PyTorch without CUDA has no Triton")
def test_fused_adadelta_is_pytorchs(tmp_path: Path) -> None:
    """By Triton's interpreter, on the CPU."""
    file = tmp_path / "steps.pt"
    torch.save(fused_problem(), file)
    interpreted = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", FUSED_ADADELTA, str(file)], env=interpreted, check=True)
    assert_steps_of(partial(torch.optim.Adadelta, rho=0.95), *torch.load(file))
