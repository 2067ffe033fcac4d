"""Each schedule, step by step, against the class of torch.optim.lr_scheduler it is named after."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from mnist_bench.config.schema import (
    ConstantConfig,
    CosineConfig,
    OneCycleConfig,
    SchedulerConfig,
    StepConfig,
    TrainConfig,
)
from mnist_bench.training.schedulers import build_schedule

Compose = Callable[..., TrainConfig]
LR = 0.3
# (epochs, steps per epoch): from a single step to an odd thousand.
LENGTHS = [(1, 1), (2, 1), (1, 2), (3, 1), (1, 3), (4, 1), (1, 10), (3, 37), (7, 143)]


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)


def rates(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, steps: int) -> list[float]:
    """The learning rate of each step."""
    used = []
    for _ in range(steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


def ours(config: SchedulerConfig, epochs: int, steps_per_epoch: int) -> list[float]:
    schedule = build_schedule(config, LR, epochs, steps_per_epoch)
    used = [schedule(step) for step in range(epochs * steps_per_epoch)]
    assert min(used) >= 0
    return used


@pytest.mark.parametrize(("epochs", "steps"), LENGTHS)
def test_constant_is_constant(epochs: int, steps: int) -> None:
    assert ours(ConstantConfig(), epochs, steps) == [LR] * epochs * steps


@pytest.mark.parametrize(("epochs", "steps"), LENGTHS)
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_pytorchs(epochs: int, steps: int, final: float) -> None:
    optimizer, total = sgd(), epochs * steps
    reference = CosineAnnealingLR(optimizer, T_max=total, eta_min=LR * final)
    expected = rates(optimizer, reference, total)
    found = ours(CosineConfig(final_factor=final), epochs, steps)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-10)
    assert found[0] == LR


@pytest.mark.parametrize(("epochs", "steps"), LENGTHS)
@pytest.mark.parametrize(
    ("warmup", "div", "final_div"), [(0.3, 25.0, 1e4), (0.1, 10.0, 10.0), (0.9, 1.0, 1e3)]
)
def test_onecycle_is_pytorchs(
    epochs: int, steps: int, warmup: float, div: float, final_div: float
) -> None:
    optimizer, total = sgd(), epochs * steps
    if warmup * total == 1:
        total += 1  # PyTorch's own divides by zero there
        epochs, steps = 1, total
    reference = OneCycleLR(
        optimizer,
        max_lr=LR,
        total_steps=total,
        pct_start=warmup,
        anneal_strategy="cos",
        cycle_momentum=False,
        div_factor=div,
        final_div_factor=final_div,
    )
    expected = rates(optimizer, reference, total)
    config = OneCycleConfig(warmup_fraction=warmup, div_factor=div, final_div_factor=final_div)
    assert ours(config, epochs, steps) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_onecycle_without_a_step_to_warm_up_starts_at_the_top() -> None:
    """Two steps, half of them warm-up: PyTorch's own divides by zero here."""
    config = OneCycleConfig(warmup_fraction=0.5, div_factor=25.0, final_div_factor=1e4)
    assert ours(config, 1, 2) == pytest.approx([LR, LR / 25 / 1e4])


@pytest.mark.parametrize(("epochs", "steps"), LENGTHS)
@pytest.mark.parametrize(("step_size", "gamma"), [(1, 0.5), (2, 0.5), (3, 0.1), (100, 0.1)])
def test_step_is_pytorchs_stepped_once_an_epoch(
    epochs: int, steps: int, step_size: int, gamma: float
) -> None:
    optimizer = sgd()
    per_epoch = rates(optimizer, StepLR(optimizer, step_size, gamma), epochs)
    expected = [rate for rate in per_epoch for _ in range(steps)]
    found = ours(StepConfig(step_size=step_size, gamma=gamma), epochs, steps)
    assert found == pytest.approx(expected, rel=1e-12)


def test_every_option_has_its_schedule_and_onecycle_pytorchs_defaults(compose: Compose) -> None:
    for path in (Path(__file__).parents[2] / "conf" / "scheduler").glob("*.yaml"):
        config = compose(f"scheduler={path.stem}").scheduler
        assert path.stem == config.name
        assert len(ours(config, 2, 5)) == 10
    defaults = signature(OneCycleLR).parameters
    config = compose("scheduler=onecycle").scheduler
    assert config.warmup_fraction == defaults["pct_start"].default
    assert config.div_factor == defaults["div_factor"].default
    assert config.final_div_factor == defaults["final_div_factor"].default
