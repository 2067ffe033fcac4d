"""The training loop, of one network or of several side by side."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mnist_bench.data.splits import ImageSet, Splits, epoch_order
from mnist_bench.errors import Diverged
from mnist_bench.interrupt import StopRequest
from mnist_bench.replicas import Replicas
from mnist_bench.step import Averages, Learner, Totals


@dataclass(frozen=True)
class EpochRecord:
    """What is known at the end of an epoch; the fields are the columns of `metrics.csv`.

    Training figures are running means over the epoch, with dropout on, while the weights move;
    validation figures are measured at its end (as Keras does both). `learning_rate` is that of the
    last step, `seconds` the time of the training steps alone, of all networks that trained side by
    side; `images_per_second` is this one's.
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


@dataclass
class Training:
    """A network on its way; `seed` sets the order of its images."""

    learner: Learner
    position: Position
    seed: int


@dataclass(frozen=True)
class Progress:
    """A glance at an epoch in progress; loss and accuracy are means over the networks."""

    epoch: int
    step: int
    seconds: float
    loss: float
    accuracy: float
    images_per_second: float


@dataclass(frozen=True)
class LoopSettings:
    epochs: int
    batch_size: int
    refresh_seconds: float


def train(
    trainings: Sequence[Training],
    splits: Splits,
    settings: LoopSettings,
    stop: StopRequest,
    show: Callable[[Progress], None],
) -> Iterator[list[EpochRecord]]:
    """Train from where the networks are to the last epoch; yields a record of each at its end.

    The networks must all be at the same epoch and step.

    Raises:
        Diverged: the loss of one is no longer finite.
        Interrupted: a signal has asked to stop; all are between two steps and can be saved.
    """
    replicas = Replicas([training.learner for training in trainings], settings.batch_size)
    while trainings[0].position.epoch <= settings.epochs:
        averages = train_epoch(replicas, trainings, splits.train, settings, stop, show)
        where = f"in the validation after epoch {trainings[0].position.epoch}"
        validations = [training.learner.evaluate(splits.validation)[0] for training in trainings]
        _check_finite(validations, where)
        records = []
        for training, trained, validation in zip(trainings, averages, validations, strict=True):
            position = training.position
            records.append(_record(training, trained, validation))
            position.history.append(records[-1])
            position.epoch, position.step, position.seconds = position.epoch + 1, 0, 0.0
            position.totals.reset()
        yield records
        stop.check()


def train_epoch(
    replicas: Replicas,
    trainings: Sequence[Training],
    images: ImageSet,
    settings: LoopSettings,
    stop: StopRequest,
    show: Callable[[Progress], None],
) -> list[Averages]:
    """Take the steps of the epoch in progress that are not done yet; returns the whole epoch's."""
    positions = [training.position for training in trainings]
    first = positions[0]
    orders = [epoch_order(len(images), training.seed, first.epoch) for training in trainings]
    batches = torch.stack(orders).to(images.images.device).split(settings.batch_size, dim=1)
    for training in trainings:
        training.learner.network.train()
        training.learner.steps = (first.epoch - 1) * len(batches) + first.step
    totals = [position.totals for position in positions]
    start = time.perf_counter() - first.seconds
    seen, shown = first.step, time.perf_counter()

    def look() -> list[Averages]:
        averages = [total.averages() for total in totals]  # waits for the device
        for position in positions:
            position.seconds = time.perf_counter() - start
        _check_finite(averages, f"in epoch {first.epoch}, steps {seen + 1} to {first.step}")
        return averages

    for batches_RN in batches[first.step :]:
        replicas.step(images, batches_RN, totals)
        for position in positions:
            position.step += 1
        if stop.signal_number is not None or time.perf_counter() - shown > settings.refresh_seconds:
            averages = look()
            seen, shown = first.step, time.perf_counter()
            show(_progress(first, averages))
            stop.check()
    return look()


def _progress(position: Position, averages: Sequence[Averages]) -> Progress:
    return Progress(
        epoch=position.epoch,
        step=position.step,
        seconds=position.seconds,
        loss=statistics.mean(a.loss for a in averages),
        accuracy=statistics.mean(a.accuracy for a in averages),
        images_per_second=len(averages) * position.totals.images / position.seconds,
    )


def _record(training: Training, averages: Averages, validation: Averages) -> EpochRecord:
    position, learner = training.position, training.learner
    return EpochRecord(
        epoch=position.epoch,
        train_loss=averages.loss,
        train_accuracy=averages.accuracy,
        val_loss=validation.loss,
        val_accuracy=validation.accuracy,
        learning_rate=learner.schedule(learner.steps - 1),
        seconds=position.seconds,
        images_per_second=position.totals.images / position.seconds,
        train_binary_accuracy=averages.binary_accuracy,
        val_binary_accuracy=validation.binary_accuracy,
    )


def _check_finite(averages: Sequence[Averages], where: str) -> None:
    for which, one in enumerate(averages):
        if not math.isfinite(one.loss):
            raise Diverged(
                which,
                f"The loss became {one.loss} {where}: lower optimizer.lr, set trainer.clip_norm, "
                f"or use trainer.precision=fp32.",
            )
