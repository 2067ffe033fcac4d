"""One run, from a configuration to a folder of results."""

from contextlib import closing
from pathlib import Path

from omegaconf import OmegaConf

from mnist_bench.config.schema import TrainConfig, Validation
from mnist_bench.kernels import why_portable
from mnist_bench.loggers.console import as_text, layers_table
from mnist_bench.loggers.tensorboard import Board
from mnist_bench.models import summarise
from mnist_bench.runs.begin import Run, begin
from mnist_bench.runs.checkpoint import CheckpointWriter
from mnist_bench.runs.ending import finish, record_ending
from mnist_bench.runs.records import best_record, write_metrics
from mnist_bench.training.interrupt import StopRequest
from mnist_bench.training.learner import count_steps
from mnist_bench.training.loop import train


def run(config: TrainConfig, folder: Path) -> None:
    """Train, validate, test, and leave the records in `folder`.

    `folder` exists and has Hydra's `.hydra`. With `config.resume` it is that run's folder.

    Raises:
        BenchError: the run cannot begin, or cannot go on, which summary.json then says.
        SystemExit: the run was interrupted; it can be resumed.
    """
    this = begin(config, folder)
    with record_ending(this):
        fit(this)
        finish(this)


def fit(run: Run) -> None:
    """Train to the last epoch."""
    table = layers_table(
        run.config.model.name, summarise(run.learner.network, run.splits.image_shape)
    )
    run.screen.table(table)
    run.screen.line(describe(run), style="bold")
    trainer, history = run.config.trainer, run.position.history
    steps = count_steps(len(run.splits.train), trainer.batch_size)
    with (
        StopRequest() as stop,  # until all is written
        closing(Board(run.folder / "tensorboard", history)) as board,
        CheckpointWriter(run.placement.device) as writer,
        run.screen.bar(trainer.epochs, steps) as bar,
    ):
        if not history and run.position.step == 0:
            yaml = OmegaConf.to_yaml(OmegaConf.structured(run.config))
            board.show_start(yaml, as_text(table), run.splits.train)
        limits = trainer.epochs, trainer.refresh_seconds
        for record in train(run.training, run.splits, *limits, stop, bar.show):
            best = best_record(history) is record
            if best:
                run.keep_best()
            every = trainer.save_every
            due = record.epoch == trainer.epochs or (every and record.epoch % every == 0)
            if due or writer.has_failed:
                writer.write(run.checkpoints())
            write_metrics(run.folder, history)
            board.show_epoch(record)
            run.screen.epoch(record, trainer.epochs, best)


def describe(run: Run) -> str:
    """Return what runs where."""
    splits, trainer = run.splits, run.config.trainer
    validation = f"{len(splits.validation):,} to validate"
    if run.config.data.validation is Validation.test:
        validation = "validated on the test set"
    missing = why_portable(trainer.kernels.name, run.placement.device)
    resumed = f", from epoch {run.position.epoch}" if run.config.resume else ""
    return (
        f"{run.config.data.name}: {len(splits.train):,} images to train, {validation}, "
        f"{len(splits.test):,} to test; {trainer.epochs} epoch{'s' * (trainer.epochs != 1)} of "
        f"batch {trainer.batch_size}"
        f"{resumed}; {run.placement.precision.name} on {run.placement.device_name}; "
        f"kernels: {run.learner.kernels}{f', without {missing}' if missing else ''}"
    )
