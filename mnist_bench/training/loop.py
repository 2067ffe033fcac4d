"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mnist_bench.config.schema import Precision, TrainerConfig
from mnist_bench.data.splits import Splits, epoch_order
from mnist_bench.errors import TrainingError
from mnist_bench.training.graphs import Stepper
from mnist_bench.training.interrupt import StopRequest
from mnist_bench.training.learner import Learner, batch_sizes
from mnist_bench.training.metrics import Totals

# What is known at the end of an epoch; the keys are the columns of metrics.csv. Training figures
# are running means over the epoch, with dropout on, while the weights move; validation figures are
# measured at its end (as Keras does both). `learning_rate` is that of the last step, `seconds` the
# time of the training steps alone.
EpochRecord = dict[str, Any]


def best_record(history: Sequence[EpochRecord]) -> EpochRecord:
    """Return the epoch of lowest validation loss, as Keras's ModelCheckpoint chooses by default.

    The accuracy on 5,000 images jumps by more from epoch to epoch than the networks differ, and
    picks the luckiest epoch rather than the best.
    """
    return min(history, key=lambda record: record["val_loss"])


def stops_early(history: Sequence[EpochRecord], patience: int | None) -> bool:
    """Return whether the last `patience` epochs have not lowered the validation loss."""
    if patience is None or not history:
        return False
    return len(history) - history.index(best_record(history)) > patience


@dataclass
class Position:
    """How far training has come: all that changes besides the learner."""

    totals: Totals
    epoch: int = 1  # the epoch in progress
    step: int = 0  # steps done in it
    seconds: float = 0.0  # spent on them
    warm_up_seconds: float = 0.0  # spent before the first, of each process that trained
    history: list[EpochRecord] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return {
            "totals": self.totals.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "warm_up_seconds": self.warm_up_seconds,
            "history": [dict(record) for record in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals.load_state_dict(state["totals"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.warm_up_seconds = state.get("warm_up_seconds", 0.0)  # older runs were not asked
        self.history = [dict(record) for record in state["history"]]


def is_over(position: Position, config: TrainerConfig) -> bool:
    """Return whether a training has no step left to take."""
    stopped = position.step == 0 and stops_early(position.history, config.early_stopping)
    return position.epoch > config.epochs or stopped


@dataclass
class Training:
    """A network on its way; `seed` sets the order of its images."""

    learner: Learner
    position: Position
    seed: int


@dataclass(frozen=True)
class Progress:
    """A glance at an epoch in progress."""

    epoch: int
    step: int
    seconds: float
    loss: float
    accuracy: float
    images_per_second: float


def train(
    training: Training,
    splits: Splits,
    config: TrainerConfig,
    stop: StopRequest,
    show: Callable[[Progress], None],
) -> Iterator[EpochRecord]:
    """Train from where the network is to the last epoch; yield a record of each at its end.

    Raises:
        TrainingError: the loss is no longer finite.
        Stopped: a signal or the time has asked to stop, and some step has been taken; the training
            is between two steps and can be saved.
    """
    learner, position = training.learner, training.position
    # Of an epoch's seconds, what so many images take that are looked at only: rather too much.
    validating, testing = (
        len(images) / len(splits.train) for images in (splits.validation, splits.test)
    )
    stepper = Stepper(learner, splits.train, position.totals)
    if not is_over(position, config):
        sizes = batch_sizes(len(splits.train), learner.batch_size)
        position.warm_up_seconds += stepper.warm_up(sizes)
    while not is_over(position, config):
        first = position.step
        averages = train_epoch(stepper, training, config.refresh_seconds, stop, show)
        if position.step > first:
            stop.check(validating * position.seconds)
        validation, _ = learner.evaluate(splits.validation, "val")
        _check_finite(validation, f"in the validation after epoch {position.epoch}", learner)
        record = _record(training, averages, validation)
        position.history.append(record)
        position.epoch, position.step, position.seconds = position.epoch + 1, 0, 0.0
        position.totals.reset()
        yield record
        stop.check(testing * record["seconds"] if is_over(position, config) else 0.0)


def train_epoch(
    stepper: Stepper,
    training: Training,
    refresh_seconds: float,
    stop: StopRequest,
    show: Callable[[Progress], None],
) -> dict[str, float]:
    """Take the steps of the epoch in progress that are not done yet; return the whole epoch's."""
    learner, position, images = training.learner, training.position, stepper.images
    order = epoch_order(len(images), training.seed, position.epoch).to(images.images.device)
    batches = order.split(learner.batch_size)
    learner.network.train()
    learner.steps = (position.epoch - 1) * len(batches) + position.step
    start = time.perf_counter() - position.seconds
    seen, shown = position.step, time.perf_counter()

    def look() -> dict[str, float]:
        averages = position.totals.averages()  # waits for the device
        position.seconds = time.perf_counter() - start
        steps = f"steps {seen + 1} to {position.step}"
        if position.step == seen + 1:
            steps = f"step {position.step}"
        _check_finite(averages, f"in epoch {position.epoch}, {steps}", learner)
        return averages

    for batch_N in batches[position.step :]:
        stepper.step(batch_N)
        position.step += 1
        now = time.perf_counter()
        another = (now - start) / position.step  # the seconds of a step
        if stop.is_due(another) or now - shown > refresh_seconds:
            averages = look()
            seen, shown = position.step, time.perf_counter()
            stop.check(another)
            show(_progress(position, averages))
    return look()


def _progress(position: Position, averages: dict[str, float]) -> Progress:
    return Progress(
        epoch=position.epoch,
        step=position.step,
        seconds=position.seconds,
        loss=averages["loss"],
        accuracy=averages["accuracy"],
        images_per_second=position.totals.images / position.seconds,
    )


def _record(
    training: Training, averages: dict[str, float], validation: dict[str, float]
) -> EpochRecord:
    position, learner = training.position, training.learner
    figures = {f"train_{name}": value for name, value in averages.items()}
    figures |= {f"val_{name}": value for name, value in validation.items()}
    # The columns that every run has come first.
    first = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    return {
        "epoch": position.epoch,
        **{column: figures[column] for column in first},
        "learning_rate": learner.schedule(learner.steps - 1),
        "seconds": position.seconds,
        "images_per_second": position.totals.images / position.seconds,
        **{column: value for column, value in figures.items() if column not in first},
    }


def _check_finite(averages: dict[str, float], where: str, learner: Learner) -> None:
    loss = averages["loss"]
    if not math.isfinite(loss):
        clip = "set" if learner.clip_norm is None else "lower"
        remedies = ["lower optimizer.lr", f"{clip} trainer.clip_norm"]
        if learner.placement.precision is not Precision.fp32:
            remedies.append("train anew with trainer.precision=fp32")
        raise TrainingError(f"The loss became {loss} {where}: {', or '.join(remedies)}.")
