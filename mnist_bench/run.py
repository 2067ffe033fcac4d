"""One run, or several side by side, from a configuration to folders of results."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from omegaconf import OmegaConf
from rich.table import Table

from mnist_bench.begin import Run, at_the_same_step, begin, write_best
from mnist_bench.checkpoint import LAST, training_state, write_checkpoint
from mnist_bench.config import TrainConfig, Validation
from mnist_bench.ending import compare_seeds, finish, record_ending, record_failure, sum_up
from mnist_bench.errors import Diverged
from mnist_bench.interrupt import StopRequest
from mnist_bench.loop import LoopSettings, train
from mnist_bench.models import summarise
from mnist_bench.records import best_record, write_metrics
from mnist_bench.screen import Screen, as_text, layers_table
from mnist_bench.step import count_steps
from mnist_bench.tensorboard import Board


def run(config: TrainConfig, folder: Path) -> None:
    """Train, validate, test, and leave the records in `folder`.

    `folder` exists and has Hydra's `.hydra`. With `config.resume` it is that run's folder. With
    `config.trainer.replicas` there are several runs, and their folders are in it.

    Raises:
        BenchError: the run cannot begin, or cannot go on, which summary.json then says.
        SystemExit: the run was interrupted; it can be resumed.
    """
    runs = begin(config, folder)
    screen = runs[0].screen if len(runs) == 1 else Screen()
    with record_ending(runs, folder, screen):
        for group in at_the_same_step(runs):
            fit(group, screen)
        if len(runs) > 1:
            compare_seeds(runs, folder, screen)
    failures = {this.folder.name: this.error for this in runs if this.error is not None}
    if failures:
        raise next(iter(failures.values())) if len(runs) == 1 else sum_up(failures, len(runs))


def fit(runs: Sequence[Run], screen: Screen) -> None:
    """Train to the end; a run that diverges is recorded as failed, and the others go on."""
    remaining = list(runs)
    network = runs[0].learner.network
    table = layers_table(runs[0].config.model.name, summarise(network))
    introduce(remaining, screen, table)
    with StopRequest() as stop:
        while remaining:
            try:
                train_together(remaining, screen, stop, as_text(table))
                break
            except Diverged as error:
                record_failure(remaining.pop(error.which), error)
            if remaining:
                stop.check()
    for this in remaining:
        finish(this)


def introduce(runs: Sequence[Run], screen: Screen, layers: Table) -> None:
    """What is trained where, on the screen once and in every run's log."""
    first = runs[0]
    for this in runs:
        this.screen.table(layers)
        this.screen.line(describe(this), style="bold")
    if first.screen is not screen:
        screen.table(layers)
        seeds = f"{len(runs)} seeds side by side, {first.config.seed} to {runs[-1].config.seed}"
        screen.line(f"{describe(first)}; {seeds}", style="bold")


def train_together(runs: Sequence[Run], screen: Screen, stop: StopRequest, layers: str) -> None:
    first = runs[0]
    trainer = first.config.trainer
    steps = count_steps(len(first.splits.train), trainer.batch_size)
    settings = LoopSettings(trainer.epochs, trainer.batch_size, trainer.refresh_seconds)
    with ExitStack() as stack:
        boards = [
            stack.enter_context(closing(Board(this.folder / "tensorboard", this.position.history)))
            for this in runs
        ]
        for this, board in zip(runs, boards, strict=True):
            if not this.position.history and this.position.step == 0:
                yaml = OmegaConf.to_yaml(OmegaConf.structured(this.config))
                board.show_start(yaml, layers, this.splits.train)
        bar = stack.enter_context(screen.bar(trainer.epochs, steps))
        trainings = [this.training for this in runs]
        for records in train(trainings, first.splits, settings, stop, bar.show):
            best = [
                best_record(this.position.history) is r
                for this, r in zip(runs, records, strict=True)
            ]
            # All or none, so that all stand at the same step when they are resumed.
            epoch = records[0].epoch
            save = any(best) or epoch % trainer.save_every == 0 or epoch == trainer.epochs
            for this, board, is_best in zip(runs, boards, best, strict=True):
                record_epoch(this, board, save, is_best)
            if first.screen is not screen:
                screen.epoch_of_replicas(records, trainer.epochs)


def record_epoch(this: Run, board: Board, save: bool, best: bool) -> None:
    history = this.position.history
    if save:
        with this.learner.randomness:
            write_checkpoint(this.folder / LAST, training_state(this.learner, this.position))
    if best:
        write_best(this)
    write_metrics(this.folder, history)
    board.show_epoch(history[-1])
    this.screen.epoch(history[-1], this.config.trainer.epochs, best)


def describe(this: Run) -> str:
    """What runs where."""
    splits, trainer = this.splits, this.config.trainer
    validation = f"{len(splits.validation):,} to validate"
    if this.config.data.validation is Validation.test:
        validation = "validated on the test set"
    resumed = f", from epoch {this.position.epoch}" if this.config.resume else ""
    return (
        f"{this.config.data.name}: {len(splits.train):,} images to train, {validation}, "
        f"{len(splits.test):,} to test; {trainer.epochs} epoch{'s' * (trainer.epochs != 1)} of "
        f"batch {trainer.batch_size}"
        f"{resumed}; {this.placement.precision.name} on {this.placement.device_name}"
    )
