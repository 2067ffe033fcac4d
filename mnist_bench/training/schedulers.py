"""Learning rate schedules: the rate of each step, from the step's number alone."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from mnist_bench.config.parts import Part
from mnist_bench.config.schema import (
    ConstantConfig,
    CosineConfig,
    OneCycleConfig,
    SchedulerConfig,
    StepConfig,
)

# From the number of a step, counted from 0, to its learning rate.
Schedule = Callable[[int], float]


def learning_rate_factor(
    config: SchedulerConfig, step: int, total_steps: int, steps_per_epoch: int
) -> float:
    """The factor for one step, counted from 0 to `total_steps` - 1."""
    match config:
        case ConstantConfig():
            return 1.0
        case CosineConfig(final_factor=final):
            return _cosine(1.0, final, step / total_steps)
        case OneCycleConfig(warmup_fraction=warmup, div_factor=div, final_div_factor=final_div):
            peak, last = warmup * total_steps - 1, total_steps - 1
            if step <= peak and peak > 0:
                return _cosine(1 / div, 1.0, step / peak)
            return _cosine(1.0, 1 / (div * final_div), (step - peak) / (last - peak))
        case StepConfig(step_size=step_size, gamma=gamma):
            return gamma ** (step // steps_per_epoch // step_size)
    raise AssertionError(f"no schedule for {config}")


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


class Scheduler(ABC):
    """The base of schedulers of one's own.

    A subclass takes its arguments by name and hands the rest on: steps of the whole training and of
    an epoch.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int):
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch

    @abstractmethod
    def factor(self, step: int) -> float:
        """Return what `optimizer.lr` is multiplied by in a step, counted from 0.

        It depends on the step alone, so that a resumed run goes on as if nothing had happened.
        """


def build_schedule(
    config: SchedulerConfig | Part, lr: float, epochs: int, steps_per_epoch: int
) -> Schedule:
    """Return the learning rate of each step of a training whose optimizer is configured with `lr`.

    Raises:
        ConfigError: a class of the user's own is not a `Scheduler` that can be built.
    """
    total_steps = epochs * steps_per_epoch
    if isinstance(config, Part):
        sizes = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        own = config.build(Scheduler, sizes, {})  # type: ignore[type-abstract]
        return lambda step: lr * own.factor(step)
    return lambda step: lr * learning_rate_factor(config, step, total_steps, steps_per_epoch)
