"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mnist_bench.data.splits import ImageSet, Splits, epoch_order
from mnist_bench.errors import TrainingError
from mnist_bench.interrupt import StopRequest
from mnist_bench.step import Averages, Learner, Totals


@dataclass(frozen=True)
class EpochRecord:
    """What is known at the end of an epoch; the fields are the columns of `metrics.csv`.

    Training figures are running means over the epoch, with dropout on, while the weights move;
    validation figures are measured at its end (as Keras does both). `learning_rate` is that of the
    last step, `seconds` the time of the training steps alone.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float
    # Set only when the loss is binary cross-entropy.
    train_binary_accuracy: float | None = None
    val_binary_accuracy: float | None = None


@dataclass
class Position:
    """How far training has come: all that changes besides the learner."""

    totals: Totals
    epoch: int = 1  # the epoch in progress
    step: int = 0  # steps done in it
    seconds: float = 0.0  # spent on them
    history: list[EpochRecord] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return {
            "totals": self.totals.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "history": [vars(record) for record in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals.load_state_dict(state["totals"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.history = [EpochRecord(**record) for record in state["history"]]


@dataclass(frozen=True)
class Progress:
    """A glance at an epoch in progress."""

    epoch: int
    step: int
    seconds: float
    averages: Averages
    images_per_second: float


@dataclass(frozen=True)
class LoopSettings:
    epochs: int
    batch_size: int
    seed: int
    refresh_seconds: float


def train(
    learner: Learner,
    splits: Splits,
    position: Position,
    settings: LoopSettings,
    stop: StopRequest,
    show: Callable[[Progress], None],
) -> Iterator[EpochRecord]:
    """Train from `position` to the last epoch, and yield a record at the end of each.

    Raises:
        TrainingError: the loss is no longer finite.
        Interrupted: a signal has asked to stop; `position` is between two steps and can be saved.
    """
    while position.epoch <= settings.epochs:
        train_epoch(learner, splits.train, position, settings, stop, show)
        validation, _ = learner.evaluate(splits.validation)
        _check_finite(validation, f"in the validation after epoch {position.epoch}")
        record = _record(learner, position, validation)
        position.history.append(record)
        position.epoch, position.step, position.seconds = position.epoch + 1, 0, 0.0
        position.totals.reset()
        yield record
        stop.check()


def train_epoch(
    learner: Learner,
    images: ImageSet,
    position: Position,
    settings: LoopSettings,
    stop: StopRequest,
    show: Callable[[Progress], None],
) -> None:
    """Take the steps of the epoch in progress that are not done yet."""
    order = epoch_order(len(images), settings.seed, position.epoch).to(images.images.device)
    batches = order.split(settings.batch_size)
    learner.network.train()
    start = time.perf_counter() - position.seconds
    seen, shown = position.step, time.perf_counter()
    for batch in batches[position.step :]:
        learner.step(images, batch, position.totals)
        position.step += 1
        if stop.signal_number is not None or time.perf_counter() - shown > settings.refresh_seconds:
            averages = position.totals.averages()  # waits for the device
            shown = time.perf_counter()
            position.seconds = shown - start
            _check_finite(
                averages, f"in epoch {position.epoch}, steps {seen + 1} to {position.step}"
            )
            seen = position.step
            rate = position.totals.images / position.seconds
            show(Progress(position.epoch, position.step, position.seconds, averages, rate))
            stop.check()
    averages = position.totals.averages()
    position.seconds = time.perf_counter() - start
    _check_finite(averages, f"in epoch {position.epoch}, steps {seen + 1} to {position.step}")


def _record(learner: Learner, position: Position, validation: Averages) -> EpochRecord:
    training = position.totals.averages()
    return EpochRecord(
        epoch=position.epoch,
        train_loss=training.loss,
        train_accuracy=training.accuracy,
        val_loss=validation.loss,
        val_accuracy=validation.accuracy,
        learning_rate=learner.last_learning_rate,
        seconds=position.seconds,
        images_per_second=position.totals.images / position.seconds,
        train_binary_accuracy=training.binary_accuracy,
        val_binary_accuracy=validation.binary_accuracy,
    )


def _check_finite(averages: Averages, where: str) -> None:
    if not math.isfinite(averages.loss):
        raise TrainingError(
            f"The loss became {averages.loss} {where}: lower optimizer.lr, set trainer.clip_norm, "
            f"or use trainer.precision=fp32."
        )
